"""One request through a pipeline, from what the caller sent to what it gets: an answer or an error."""

import asyncio
import uuid
from collections.abc import Mapping

from mlserver_chat import Stalled

from .engine import Answer, Engine, Failure, Run
from .errors import StepFailed
from .messages import Message, Tensor
from .trace import trace_rows

IDENTITY = "x-request-id"
"""The header that every step sees and that tells a replay from a new request."""
TRACE = "x-pipeline-trace"
"""The header that asks for the tensor `trace`."""


def entry_headers(headers: Mapping[str, str], identity: str = "") -> dict[str, str]:
    """The headers that enter a pipeline: those whose name begins with `x-`, and an identity if they lack one, so that
    what the steps store is stored once."""
    entering = {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-")}
    return entering | {IDENTITY: entering.get(IDENTITY) or identity or uuid.uuid4().hex}


class Runner:
    """Answers requests of the engine's pipelines.

    Args:
        engine: runs them.
        trace_values: whether the tensor `trace` shows data.
    """

    def __init__(self, engine: Engine, trace_values: bool):
        self._engine = engine
        self._trace_values = trace_values

    async def answer(self, pipeline: str, message: Message, headers: Mapping[str, str]) -> Answer:
        """The pipeline's answer. With the header `x-pipeline-trace: 1` it has one tensor more, `trace`.

        A caller that goes away stops nothing: the request runs to its end, as in the cluster.

        Raises:
            StepFailed: a step answered with an error before there was an answer.
            Stalled: no answer can come.
        """
        identity = headers.get(IDENTITY, "")
        passed_on = {name: value for name, value in headers.items() if name != TRACE}
        run = self._engine.start(pipeline, message, passed_on, identity)
        outcome = await asyncio.shield(run.outcome)
        if isinstance(outcome, Failure):
            raise StepFailed(outcome.text)
        if not isinstance(outcome, Answer):
            raise Stalled(outcome.text)
        return self._traced(outcome, run) if headers.get(TRACE) == "1" else outcome

    async def aclose(self) -> None:
        """Let what is in flight come to its end."""
        await self._engine.aclose()

    def _traced(self, answer: Answer, run: Run) -> Answer:
        rows = [row.encode("utf-8") for row in trace_rows(run.traces, self._trace_values)]
        trace = Tensor("trace", "BYTES", (len(rows), 1), rows, {"content_type": "str"})
        message = answer.message._replace(tensors=(*answer.message.tensors, trace))
        return Answer(message, answer.headers)
