"""Runs requests through pipelines.

`Engine` holds the pipelines. Each request is a `Run` with joins and timestamps of its own, since Core 2 joins by
request. Nothing here knows MLServer: a model is an async function from message to message.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlserver_chat.requests.deadline import Deadline, current_deadline

from ..manifests.graph import Graph, Node
from ..manifests.references import Topic
from .batches import BatchBuffer
from .errors import StepTimeout, step_error
from .joins import Fold, Join, keep_left
from .messages import Record, StepMessage
from .trace import NodeTrace, describe_stall

Call = Callable[[str, StepMessage, Mapping[str, str]], Awaitable[tuple[StepMessage, Mapping[str, str]]]]
"""Calls a model, by its name, with a message and headers. Returns its answer and the `x-*` headers that it adds."""

MOMENT = 0.01
"""Seconds. An error of a step in this last moment before its deadline counts as a timeout: steps may watch the
deadline themselves."""

Clock = Callable[[], int]
"""Returns the time in milliseconds."""


def wall_clock() -> int:
    """Return the time of day in milliseconds, as in the timestamps of Kafka."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Answer:
    """The first message that reached the pipeline's output."""

    message: StepMessage
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Failure:
    """A step's error reached the pipeline's output first."""

    text: str


@dataclass(frozen=True)
class Stall:
    """No step runs and no answer can come any more."""

    text: str


@dataclass(frozen=True)
class TimedOut:
    """The request's deadline passed before there was an answer."""

    has_called_step: bool
    """Whether a step had been called by then."""

    @property
    def text(self) -> str:
        """The sentence for the caller."""
        missed = "the pipeline answered" if self.has_called_step else "a step was called"
        return f"the request's deadline passed before {missed}"


Outcome = Answer | Failure | Stall | TimedOut


class _Listener(NamedTuple):
    node: Node
    source: int
    is_trigger: bool


class Engine:
    """The pipelines that were loaded together. A message of one may be an input of another.

    Args:
        graphs: the pipelines.
        call: calls a model.
        clock: gives the timestamps of requests and answers.
        around: wraps the `call` of every request.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        call: Call,
        clock: Clock = wall_clock,
        around: Callable[[Call], Call] = lambda call: call,
    ):
        self.graphs = {graph.name: graph for graph in graphs}
        self.call = call
        self.clock = clock
        self.around = around
        self.listeners: dict[Topic, list[_Listener]] = {}
        for node in (node for graph in graphs for node in graph.nodes):
            for is_trigger, sources in ((False, node.sources), (True, node.triggers)):
                for index, source in enumerate(sources):
                    self.listeners.setdefault(source.topic, []).append(_Listener(node, index, is_trigger))
        self.batches = {node.sink: BatchBuffer(node.batch) for graph in graphs for node in graph.nodes if node.batch}
        self._runs: set[Run] = set()

    def start(
        self, pipeline: str, message: StepMessage, headers: Mapping[str, str], identity: str, call: Call | None = None
    ) -> "Run":
        """Start a request. It runs to its end or to the current deadline, also if no caller waits for it.

        Args:
            pipeline: the pipeline's name.
            message: the request.
            headers: its `x-*` headers.
            identity: its id.
            call: calls the models of this request, in place of the engine's own.
        """
        run = Run(self, self.graphs[pipeline], identity, self.around(call or self.call), current_deadline())
        self._runs.add(run)
        run.done.add_done_callback(lambda _: self._runs.discard(run))
        run.begin(Record(message, headers, self.clock()))
        return run

    async def aclose(self) -> None:
        """Wait until all running requests have finished."""
        await asyncio.gather(*(run.done for run in self._runs))


class _NodeState:
    """The joins of one node for one request."""

    def __init__(self, node: Node):
        self.data = Fold(node.join, node.window, len(node.sources))
        self.triggers = Fold(node.triggers_join, node.window, len(node.triggers))
        self._gate = Join("inner", node.window, keep_left) if node.triggers else None
        self.visits = 0
        self.trace = NodeTrace(node)

    def arrive(self, listener: _Listener, record: Record) -> list[Record]:
        """Add a record from a source or trigger, and return the records that the node fires for."""
        fold = self.triggers if listener.is_trigger else self.data
        return self._through_gate(listener.is_trigger, fold.arrive(listener.source, record))

    def release(self) -> list[Record]:
        """Emit the records that outer joins hold, and return the records that the node fires for."""
        for is_trigger, fold in ((False, self.data), (True, self.triggers)):
            passed = self._through_gate(is_trigger, fold.release())
            if passed:
                return passed
        return []

    def _through_gate(self, is_trigger: bool, records: list[Record]) -> list[Record]:
        if self._gate is None:
            return records
        return [passed for record in records for passed in self._gate.arrive(int(is_trigger), record)]


class Run:
    """One request.

    `outcome` resolves with the first message or error that reaches the output, `done` when no step runs any more. At
    the deadline, the steps that still run are cancelled; a run without an outcome then gets `TimedOut`.

    Args:
        engine: holds the pipelines.
        graph: the pipeline that was asked.
        identity: the request's id.
        call: calls a model.
        deadline: ends the run.
    """

    def __init__(self, engine: Engine, graph: Graph, identity: str, call: Call, deadline: Deadline):
        loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Outcome] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.states = {node.sink: _NodeState(node) for each in engine.graphs.values() for node in each.nodes}
        self._engine = engine
        self._graph = graph
        self._identity = identity
        self._model = call
        self._deadline = deadline
        self._has_expired = False
        self._has_called_step = False
        self._queue: deque[tuple[Topic, Record]] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def traces(self) -> list[NodeTrace]:
        """The trace of each node of the pipeline."""
        return [self.states[node.sink].trace for node in self._graph.nodes]

    def begin(self, record: Record) -> None:
        """Send the request into the pipeline."""
        self._queue.append((self._graph.inputs, record))
        if not math.isinf(self._deadline.at):
            timer = asyncio.get_running_loop().call_later(self._deadline.left, self._expire)
            self.done.add_done_callback(lambda _: timer.cancel())
        self._settle()

    @property
    def _is_late(self) -> bool:
        return self._deadline.left < MOMENT

    def _check_deadline(self) -> bool:
        """Whether the run may go on."""
        if self._deadline.passed:
            self._expire()
        return not self._has_expired

    def _expire(self) -> None:
        self._has_expired = True
        self._resolve(TimedOut(self._has_called_step))
        for call in self._calls:
            call.cancel()

    def _settle(self) -> None:
        """Deliver queued records. Once no step runs, release the records that outer joins hold. Then end the run."""
        while self._check_deadline():
            while self._queue:
                self._deliver(*self._queue.popleft())
            if self._calls or not self._release():
                break
        if self._calls:
            return
        self._resolve(Stall(describe_stall(self._graph, self.traces)))
        if not self.done.done():
            self.done.set_result(None)

    def _release(self) -> bool:
        """Release the records that the first node, upstream first, holds. Returns whether there were any."""
        for graph in self._engine.graphs.values():
            for node in graph.nodes:
                released = self.states[node.sink].release()
                for record in released:
                    self._fire(node, record)
                if released:
                    return True
        return False

    def _deliver(self, topic: Topic, record: Record) -> None:
        graph = self._engine.graphs[topic.pipeline]
        if topic == graph.outputs:
            for node in graph.nodes:
                self.states[node.sink].visits = 0
            if graph is self._graph:
                self._resolve(Answer(record.message, record.headers))
        for listener in self._engine.listeners.get(topic, ()):
            node = listener.node
            state = self.states[node.sink]
            source = (node.triggers if listener.is_trigger else node.sources)[listener.source]
            renamed = None if listener.is_trigger else node.renames.get(topic)
            message = record.message.select(source.tensors, renamed or {})
            state.trace.arrived(source, message)
            if message is not None and node.batch and not listener.is_trigger:
                message = self._engine.batches[node.sink].add(message)
            if message is not None:
                for passed in state.arrive(listener, record._replace(message=message)):
                    self._fire(node, passed)

    def _fire(self, node: Node, record: Record) -> None:
        state = self.states[node.sink]
        state.visits += 1
        if node.max_visits is not None and state.visits > node.max_visits:
            self._fail(node.sink.pipeline, self._too_many_visits(node))
            return
        state.trace.fired(record.message)
        record = record._replace(headers=_after_hop(record.headers))
        self._queue.append((node.sink, record))
        if node.calls_model:
            task = asyncio.get_running_loop().create_task(self._call(node, record))
            self._calls.add(task)
            task.add_done_callback(self._called)

    async def _call(self, node: Node, record: Record) -> None:
        trace = self.states[node.sink].trace
        began = time.perf_counter()
        self._has_called_step = True
        try:
            message, headers = await self._model(node.name, record.message, record.headers)
        except (Exception, asyncio.CancelledError) as error:
            text = step_error(node.name, StepTimeout() if self._is_late else error)
            trace.failed(text, time.perf_counter() - began)
            self._fail(node.sink.pipeline, text)
            return
        trace.answered(message, time.perf_counter() - began)
        answer = Record(message, {**record.headers, **headers}, self._engine.clock())
        self._queue.append((node.sink._replace(side="outputs"), answer))

    def _called(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._settle()

    def _fail(self, pipeline: str, text: str) -> None:
        if pipeline == self._graph.name:
            self._resolve(TimedOut(self._has_called_step) if self._is_late else Failure(text))

    def _resolve(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def _too_many_visits(self, node: Node) -> str:
        limit = (node.max_visits or 1) - 1
        pipeline = node.sink.pipeline
        key = f"0.{pipeline}.{self._identity}"
        topic = f"seldon.default.model.{node.name}.inputs"
        return (
            f"{pipeline} : ERROR: Max step revisits ({limit}) exceeded for request {key} in topic "
            f"TopicForPipeline(topicName={topic}, pipelineName={pipeline})"
        )


_DROPPED_HEADERS = {"x-seldon-alibi-type", "x-seldon-alibi-method"}
_VERSION = "x-pipeline-version"


def _after_hop(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that the engine passes on. The pipeline's version is always 1 here."""
    if headers.get(_VERSION) == "1" and not headers.keys() & _DROPPED_HEADERS:
        return headers
    return {name: value for name, value in headers.items() if name not in _DROPPED_HEADERS} | {_VERSION: "1"}
