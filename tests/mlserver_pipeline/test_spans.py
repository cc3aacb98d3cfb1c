"""OpenTelemetry spans of steps."""

from collections.abc import Callable

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mlserver_pipeline.calls.spans import SpannedSteps
from pipeline_lab import Lab, emits, fails, ints


async def test_step_span_is_a_child_of_the_request_and_names_tensors_only(
    lab: Callable[..., Lab],
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spec = "steps: [{name: a}, {name: b, inputs: [a]}]\noutput: {steps: [b]}"
    it = lab({"a": emits("x"), "b": fails(422, "secret words")}, spec)
    it.engine.around = lambda call: SpannedSteps(call, provider.get_tracer("test"))
    with provider.get_tracer("test").start_as_current_span("request"):
        await it.run(ints("i", 48213))
    a, b, request = exporter.get_finished_spans()
    assert [span.name for span in (a, b)] == ["step a", "step b"]
    assert [span.parent and span.parent.span_id for span in (a, b)] == [request.context.span_id] * 2
    assert a.attributes == {"pipeline.step": "a", "pipeline.tensors.in": ("i",), "pipeline.tensors.out": ("x",)}
    assert (a.status.status_code, b.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    assert "secret" not in b.to_json() and "48213" not in a.to_json() + b.to_json()
