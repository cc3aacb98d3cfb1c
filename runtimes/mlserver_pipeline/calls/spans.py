"""Calls of steps as OpenTelemetry spans, below the span of the request that MLServer makes."""

from collections.abc import Mapping

from opentelemetry.trace import Status, StatusCode, Tracer, use_span

from ..engine.engine import Call
from ..engine.messages import StepMessage


class SpannedSteps:
    """A span for each call: `step <name>`, with the names of the tensors that came and left, and never their data.

    Args:
        call: calls a model.
        tracer: makes the spans.
    """

    def __init__(self, call: Call, tracer: Tracer):
        self._call = call
        self._tracer = tracer

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """The step's answer; the engine's `Call`."""
        attributes = {"pipeline.step": step, "pipeline.tensors.in": _names(message)}
        span = self._tracer.start_span(f"step {step}", attributes=attributes)
        if not span.get_span_context().is_valid:
            return await self._call(step, message, headers)
        # An exception's text may hold what a user wrote.
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                answer, added = await self._call(step, message, headers)
            except Exception:
                span.set_status(Status(StatusCode.ERROR))
                raise
            span.set_attribute("pipeline.tensors.out", _names(answer))
            return answer, added


def _names(message: StepMessage) -> list[str]:
    return [tensor.name for tensor in message.tensors]
