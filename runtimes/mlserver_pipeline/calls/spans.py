"""Records each call of a step as an OpenTelemetry span, a child of MLServer's span of the request."""

from collections.abc import Mapping

from opentelemetry.trace import Status, StatusCode, Tracer, use_span

from ..engine.engine import Call
from ..engine.messages import StepMessage


class SpannedSteps:
    """Records a span `step <name>` for each call, with the names of the tensors in and out but never their data.

    Args:
        call: calls a model.
        tracer: creates the spans.
    """

    def __init__(self, call: Call, tracer: Tracer):
        self._call = call
        self._tracer = tracer

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step; the engine's `Call`."""
        attributes = {"pipeline.step": step, "pipeline.tensors.in": _names(message)}
        span = self._tracer.start_span(f"step {step}", attributes=attributes)
        if not span.get_span_context().is_valid:
            return await self._call(step, message, headers)
        # The text of an exception may contain message text.
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
