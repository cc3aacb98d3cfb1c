"""One request through a pipeline, from what the caller sent to what it gets: an answer or an error."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from mlserver_chat import NotReachable, Stalled, UpstreamFailed
from mlserver_chat.errors import CallerLeft
from mlserver_chat.requests.caller import Caller, caller_scope, current_caller
from mlserver_chat.requests.deadline import DEADLINE_HEADER
from mlserver_chat.requests.identity import carried_headers

from .engine import Answer, Call, Engine, Failure, Run, Stall, TimedOut
from .errors import StepFailed
from .messages import StepMessage, Tensor
from .streaming import ChunkFeed, StreamCall
from .trace import trace_rows

IDENTITY = "x-request-id"
"""The header that every step sees and that tells a replay from a new request."""
TRACE = "x-pipeline-trace"
"""The header that asks for the tensor `trace`."""


def entry_headers(headers: Mapping[str, str], identity: str = "") -> dict[str, str]:
    """The headers that enter a pipeline: those whose name begins with `x-`, and an identity if they lack one, so that
    what the steps store is stored once."""
    return carried_headers(headers, identity or uuid.uuid4().hex)


class Streaming(NamedTuple):
    """How steps are streamed: for each pipeline those that may be, and how such a model is called."""

    steps: Mapping[str, frozenset[str]]
    call: StreamCall
    max_bytes: int = 16 * 2**20
    """Most bytes of the tensors of one streamed answer."""


class Runner:
    """Answers requests of the engine's pipelines.

    Args:
        engine: runs them.
        trace_values: whether the tensor `trace` shows data.
        streaming: None when no step is ever streamed.
    """

    def __init__(self, engine: Engine, trace_values: bool = True, streaming: Streaming | None = None):
        self._engine = engine
        self._trace_values = trace_values
        self._streaming = streaming

    async def answer(self, pipeline: str, message: StepMessage, headers: Mapping[str, str]) -> Answer:
        """The pipeline's answer. With the header `x-pipeline-trace: 1` it has one tensor more, `trace`.

        A caller that goes away stops nothing: the request runs to its end, as in the cluster.

        Raises:
            StepFailed: a step answered with an error before there was an answer.
            Stalled: no answer can come.
        """
        caller = Caller()
        with caller_scope(caller):
            run = self._start(pipeline, message, headers)
        try:
            await _outcome_for(current_caller(), run)
        except (CallerLeft, asyncio.CancelledError):
            caller.leave()
            raise
        return self._answer(run, headers)

    async def stream(self, pipeline: str, message: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        """The chunks of the streamed step that fires, with the parameter `step`, then the pipeline's answer.

        When the caller goes away the model stops, and what it had said goes on through the pipeline, marked by the
        parameter `finish_reason: cut`.

        Raises:
            StepFailed, Stalled: as `answer`.
        """
        if self._streaming is None:
            yield await self.answer(pipeline, message, headers)
            return
        caller = Caller()
        streaming = self._streaming
        feed = ChunkFeed(streaming.steps[pipeline], self._engine.call, streaming.call, caller, streaming.max_bytes)
        with caller_scope(caller):
            run = self._start(pipeline, message, headers, feed)
        run.outcome.add_done_callback(lambda _: feed.end())
        try:
            async for chunk in feed.chunks():
                yield Answer(chunk, headers)
            yield self._answer(run, headers)
        finally:
            if not run.outcome.done():
                feed.cut()

    async def aclose(self) -> None:
        """Let what is in flight come to its end."""
        await self._engine.aclose()

    def _start(self, pipeline: str, message: StepMessage, headers: Mapping[str, str], call: Call | None = None) -> Run:
        # The deadline is the run's, which tells each step what is left of it.
        passed_on = {name: value for name, value in headers.items() if name not in (TRACE, DEADLINE_HEADER)}
        return self._engine.start(pipeline, message, passed_on, headers.get(IDENTITY, ""), call)

    def _answer(self, run: Run, headers: Mapping[str, str]) -> Answer:
        outcome = run.outcome.result()
        if isinstance(outcome, Failure):
            raise StepFailed(outcome.text)
        if isinstance(outcome, Stall):
            raise Stalled(outcome.text)
        if isinstance(outcome, TimedOut):
            raise (UpstreamFailed if outcome.was_sent else NotReachable)(outcome.text)
        if headers.get(TRACE) != "1":
            return outcome
        rows = [row.encode("utf-8") for row in trace_rows(run.traces, self._trace_values)]
        trace = Tensor("trace", "BYTES", (len(rows), 1), rows, {"content_type": "str"})
        return Answer(outcome.message._replace(tensors=(*outcome.message.tensors, trace)), outcome.headers)


async def _outcome_for(caller: Caller | None, run: Run) -> None:
    """Wait until the run has an outcome; it goes on when this is cancelled.

    Raises:
        CallerLeft: the caller left before.
    """

    async def outcome() -> None:
        await asyncio.shield(run.outcome)

    await (outcome() if caller is None else caller.unless_left(outcome()))
