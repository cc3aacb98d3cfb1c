"""Answers requests: starts a run, waits for its outcome, and returns the answer or raises the error."""

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
"""Identifies a request to every step. A repeated request has the same value."""
TRACE = "x-pipeline-trace"
"""Set to `1`, asks for the tensor `trace`."""


def entry_headers(headers: Mapping[str, str], identity: str = "") -> dict[str, str]:
    """Return the headers that enter a pipeline: those that begin with `x-`, and always a request id.

    With the id, steps store a message once, also if they are called twice.
    """
    return carried_headers(headers, identity or uuid.uuid4().hex)


class Streaming(NamedTuple):
    """How steps are streamed."""

    steps: Mapping[str, frozenset[str]]
    """The steps that may be streamed, by pipeline."""
    call: StreamCall
    """Calls such a step."""
    max_bytes: int = 16 * 2**20
    """Most bytes of the tensors of one streamed answer."""


class Runner:
    """Answers requests of an engine's pipelines.

    Args:
        engine: runs the requests.
        trace_values: whether the tensor `trace` shows data.
        streaming: how steps are streamed; None streams no step.
    """

    def __init__(self, engine: Engine, trace_values: bool = True, streaming: Streaming | None = None):
        self._engine = engine
        self._trace_values = trace_values
        self._streaming = streaming

    async def answer(self, pipeline: str, message: StepMessage, headers: Mapping[str, str]) -> Answer:
        """Return the pipeline's answer. The header `x-pipeline-trace: 1` adds the tensor `trace`.

        If the caller leaves, LLM steps are cancelled and other steps finish.

        Raises:
            StepFailed: a step failed before there was an answer.
            Stalled: no answer can come.
            UpstreamFailed: the request's deadline passed. NotReachable: it passed before any step was called.
            CallerLeft: the caller left.
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
        """Yield the chunks of the streamed step, each with the parameter `step`, then the pipeline's answer.

        If the caller leaves, the streamed step is cut: its text so far goes on through the pipeline, with the parameter
        `finish_reason: cut`. Raises like `answer`.
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
                yield Answer(chunk, _passed_on(headers))
            yield self._answer(run, headers)
        finally:
            if not run.outcome.done():
                feed.cut()

    async def aclose(self) -> None:
        """Wait until all running requests have finished."""
        await self._engine.aclose()

    def _start(self, pipeline: str, message: StepMessage, headers: Mapping[str, str], call: Call | None = None) -> Run:
        return self._engine.start(pipeline, message, _passed_on(headers), headers.get(IDENTITY, ""), call)

    def _answer(self, run: Run, headers: Mapping[str, str]) -> Answer:
        outcome = run.outcome.result()
        if isinstance(outcome, Failure):
            raise StepFailed(outcome.text)
        if isinstance(outcome, Stall):
            raise Stalled(outcome.text)
        if isinstance(outcome, TimedOut):
            raise (UpstreamFailed if outcome.has_called_step else NotReachable)(outcome.text)
        if headers.get(TRACE) != "1":
            return outcome
        rows = [row.encode("utf-8") for row in trace_rows(run.traces, self._trace_values)]
        trace = Tensor("trace", "BYTES", (len(rows), 1), rows, {"content_type": "str"})
        return Answer(outcome.message._replace(tensors=(*outcome.message.tensors, trace)), outcome.headers)


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that follow every message. The run itself tells each step how much time is left."""
    return {name: value for name, value in headers.items() if name not in (TRACE, DEADLINE_HEADER)}


async def _outcome_for(caller: Caller | None, run: Run) -> None:
    """Wait until a run has an outcome. Cancelling this doesn't cancel the run.

    Raises:
        CallerLeft: the caller left before.
    """

    async def outcome() -> None:
        await asyncio.shield(run.outcome)

    await (outcome() if caller is None else caller.unless_left(outcome()))
