"""Warnings about valid manifests that probably don't do what their authors expect."""

from collections.abc import Callable, Iterator, Mapping

from .graph import compile_graph
from .manifest import PipelineManifest
from .references import group, parse, with_default
from .validation import ManifestFault


def _no_output(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    if manifest.spec.output is None:
        yield ("spec",), f"pipeline '{manifest.name}' has no output, so a caller never gets an answer"


def _unused_steps(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    graph = compile_graph(manifest)
    sources = (source for node in graph.nodes for source in (*node.sources, *node.triggers))
    read = {source.topic.owner for source in sources if source.topic.side == "outputs"}
    for index, step in enumerate(manifest.spec.steps):
        if step.name not in read:
            yield ("spec", "steps", index, "name"), f"nothing reads the outputs of step '{step.name}'"


def _either_trigger(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    for index, step in enumerate(manifest.spec.steps):
        references = [parse(with_default(each, manifest.name), manifest.name) for each in step.triggers]
        for source in group(references):
            if len(source.tensors) > 1 and step.triggers_join_type == "inner":
                yield (
                    ("spec", "steps", index, "triggers"),
                    f"step '{step.name}' is triggered by any one of the tensors {', '.join(source.tensors)} of "
                    f"{source.topic}: triggersJoinType has no effect within one topic",
                )


def _input_is_trigger(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    for index, step in enumerate(manifest.spec.steps):
        inputs = {with_default(reference, manifest.name) for reference in step.inputs}
        for position, reference in enumerate(step.triggers):
            if with_default(reference, manifest.name) in inputs:
                yield (
                    ("spec", "steps", index, "triggers", position),
                    f"pipeline {manifest.name} : inputs and triggers must differ, but found {reference} in both",
                )


def _batch_ignored(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    nodes = {node.name: node for node in compile_graph(manifest).nodes if node.calls_model}
    for index, step in enumerate(manifest.spec.steps):
        if step.batch.size and len(nodes[step.name].sources) > 1:
            yield (
                ("spec", "steps", index, "batch"),
                f"step '{step.name}' joins several sources, so it is not batched",
            )


def _batch_fields(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    for index, step in enumerate(manifest.spec.steps):
        for field, value in (("windowMs", step.batch.window_ms), ("rolling", step.batch.rolling)):
            if value:
                yield ("spec", "steps", index, "batch", field), f"batch.{field} of step '{step.name}' has no effect"


def _outer_waits(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    rule = "lets a lone source through only when a later request shows that its window has passed"
    for index, step in enumerate(manifest.spec.steps):
        if step.inputs_join_type == "outer" and len(step.inputs) > 1:
            yield ("spec", "steps", index, "inputsJoinType"), f"on Core 2 the outer join of step '{step.name}' {rule}"
    output = manifest.spec.output
    if output is not None and output.steps_join == "outer" and len(output.steps) > 1:
        yield ("spec", "output", "stepsJoin"), f"on Core 2 the outer join of the output {rule}"


ADVICE: Mapping[str, Callable[[PipelineManifest], Iterator[ManifestFault]]] = {
    "no-output": _no_output,
    "unused-step": _unused_steps,
    "trigger-either": _either_trigger,
    "input-is-trigger": _input_is_trigger,
    "batch-ignored": _batch_ignored,
    "batch-fields": _batch_fields,
    "outer-waits": _outer_waits,
}
"""The checks of valid manifests, by the name that the linter reports."""
