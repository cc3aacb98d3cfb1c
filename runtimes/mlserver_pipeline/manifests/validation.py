"""Checks manifests: first the rules of Core 2, in its order and its words, then rules that Core 2 lacks.

Core 2 checks a Pipeline when it loads it and reports the first fault. It accepts other faults and then crashes, ignores
them, or runs forever. No author intends those, so they make loading fail here too.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from mlserver_chat import SettingsError
from mlserver_chat.requests.identity import NAME_PATTERN

from .documents import Location
from .manifest import Loaded, PipelineManifest
from .references import SIDES, with_default, with_external_default

ManifestFault = tuple[Location, str]
"""A location in the manifest, and one sentence."""


def check(loaded: Loaded) -> PipelineManifest:
    """Return the manifest if it has no fault.

    Raises:
        SettingsError: the first fault, with file and line.
    """
    for location, sentence in faults(loaded.manifest):
        raise SettingsError(f"{loaded.document.position(location)}: {sentence}")
    return loaded.manifest


def faults(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    """Yield all faults, first those that Core 2 reports."""
    for rule in RULES.values():
        yield from rule(manifest)


def _repeated_steps(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    seen: set[str] = set()
    for index, step in enumerate(manifest.spec.steps):
        if step.name in seen:
            yield ("spec", "steps", index, "name"), f"pipeline {manifest.name} has repeated step {step.name}"
        seen.add(step.name)


def _pipeline_name(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    name = manifest.name
    if not NAME_PATTERN.fullmatch(name):
        yield (
            ("metadata", "name"),
            f"pipeline {name} does not have a valid name - it must be alphanmumeric and cannot contain dots (.)",
        )


def _no_steps(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    if not manifest.spec.steps:
        yield ("spec", "steps"), f"pipeline {manifest.name} has no steps defined"


def _step_like_pipeline(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    for index, step in enumerate(manifest.spec.steps):
        if step.name == manifest.name:
            yield (
                ("spec", "steps", index, "name"),
                f"pipeline {manifest.name} must not have a step name with the same name as pipeline name",
            )


def _reference_forms(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    for field, empty, invalid in (("inputs", "input", "input"), ("triggers", "trigger", "trigger")):
        for index, step in enumerate(manifest.spec.steps):
            references: list[str] = getattr(step, field)
            for position, reference in enumerate(references):
                place: Location = ("spec", "steps", index, field, position)
                full = with_default(reference, manifest.name)
                if not full.strip() or full.startswith("."):
                    yield place, f"pipeline {manifest.name} step {step.name} has an empty {empty}"
                elif not _is_reference(full):
                    yield (
                        place,
                        f"pipeline step {invalid} invalid pipeline {manifest.name} step {step.name} input step {full}.",
                    )


def _is_reference(reference: str) -> bool:
    parts = reference.split(".")
    return len(parts) in (2, 3) and parts[1] in SIDES


def _references_exist(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    names = {step.name for step in manifest.spec.steps}
    readable = names | {manifest.name}
    for index, step in enumerate(manifest.spec.steps):
        for position, reference in enumerate(step.inputs):
            owner = reference.split(".")[0]
            if owner.strip() and owner not in readable:
                yield (
                    ("spec", "steps", index, "inputs", position),
                    f"pipeline {manifest.name} step {step.name} has input {owner} for step that does not exist",
                )
    for position, reference in enumerate(manifest.spec.output.steps if manifest.spec.output else []):
        owner = reference.split(".")[0]
        if owner not in names:
            yield (
                ("spec", "output", "steps", position),
                f"pipeline {manifest.name} output step {owner} not found",
            )


def _output_forms(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    for position, reference in enumerate(manifest.spec.output.steps if manifest.spec.output else []):
        full = with_default(reference, manifest.name)
        if not _is_reference(full):
            yield (
                ("spec", "output", "steps", position),
                f"pipeline {manifest.name} output specifier {full} invalid",
            )


def _cycle(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    if manifest.spec.allow_cycles:
        return
    reads = {
        step.name: {reference.split(".")[0] for reference in (*step.inputs, *step.triggers)} - {manifest.name}
        for step in manifest.spec.steps
    }
    try:
        TopologicalSorter(reads).prepare()
    except CycleError:
        yield ("spec", "steps"), f"pipeline {manifest.name} has a cycle"


def _external_forms(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    source = manifest.spec.input
    if source is None:
        return
    if not source.external_inputs:
        yield (
            ("spec", "input"),
            f"pipeline {manifest.name} input  is invalid. At least one pipeline input must be specified",
        )
    for field, references in (
        ("externalInputs", source.external_inputs),
        ("externalTriggers", source.external_triggers),
    ):
        for position, reference in enumerate(references):
            why = _external_fault(with_external_default(reference))
            if why:
                yield (
                    ("spec", "input", field, position),
                    f"pipeline {manifest.name} input {reference} is invalid. {why}",
                )


def _external_fault(reference: str) -> str:
    parts = reference.split(".")
    if not parts[0].strip():
        return "Input name must not be empty"
    if len(parts) < 2:
        return "A Pipeline name must also specify one of inputs, outputs or a step name"
    if parts[1] in SIDES:
        return "" if len(parts) <= 3 else _TOO_LONG
    if parts[1] != "step":
        return "A Pipeline inputs referencing another pipeline must be <pipeineName>.(inputs|outputs|step.<stepName>)"
    if len(parts) < 4 or parts[3] not in SIDES:
        return "A pipeline step must be <pipelineName>.step.<stepName>.(inputs|outputs)"
    return "" if len(parts) <= 5 else _TOO_LONG


_TOO_LONG = (
    "The input is too long. It must be <pipelineName>.(inputs|outputs).(tensorName)? or "
    "<pipelineName>.step.<stepName>.<inputs|outputs>.<tensorName>"
)


def _step_names(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    for index, step in enumerate(manifest.spec.steps):
        if not NAME_PATTERN.fullmatch(step.name):
            yield (
                ("spec", "steps", index, "name"),
                f"step '{step.name}' can't be the name of a Model: use lower-case letters, digits and '-'",
            )


def _unknown_triggers(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    names = {step.name for step in manifest.spec.steps} | {manifest.name}
    for index, step in enumerate(manifest.spec.steps):
        for position, reference in enumerate(step.triggers):
            owner = reference.split(".")[0]
            if owner.strip() and owner not in names:
                yield (
                    ("spec", "steps", index, "triggers", position),
                    f"step '{step.name}' has trigger '{reference}', but there is no step '{owner}'",
                )


def _own_output_loop(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    """A step that reads the pipeline's outputs and contributes to them would run forever."""
    if manifest.spec.output is None:
        return
    reads: dict[str, set[str]] = {manifest.name: {_owner(reference) for reference in manifest.spec.output.steps}}
    for step in manifest.spec.steps:
        references = (*step.inputs, *step.triggers)
        # The pipeline's inputs are not made by the pipeline, so they close no loop.
        own = {manifest.name} if any(_is_own_output(ref, manifest.name) for ref in references) else set[str]()
        reads[step.name] = {_owner(reference) for reference in references} - {manifest.name} | own
    upstream: set[str] = set()
    pending = [manifest.name]
    while pending:
        for name in reads.get(pending.pop(), set()) - upstream:
            upstream.add(name)
            pending.append(name)
    if manifest.name in upstream:
        yield (
            ("spec", "output"),
            f"pipeline {manifest.name} makes its outputs from its own outputs, and would run forever",
        )


def _owner(reference: str) -> str:
    return reference.split(".")[0]


def _is_own_output(reference: str, pipeline: str) -> bool:
    return bool(re.match(rf"{re.escape(pipeline)}\.outputs(\.|$)", reference))


def _unmatched_tensor_maps(manifest: PipelineManifest) -> Iterator[ManifestFault]:
    spec = manifest.spec
    for index, step in enumerate(spec.steps):
        sources = [with_default(ref, manifest.name) for ref in step.inputs] or [f"{manifest.name}.inputs"]
        yield from _unmatched(("spec", "steps", index, "tensorMap"), step.tensor_map, sources)
    if spec.input:
        sources = [with_external_default(reference) for reference in spec.input.external_inputs]
        yield from _unmatched(("spec", "input", "tensorMap"), spec.input.tensor_map, sources)
    if spec.output:
        sources = [with_default(ref, manifest.name) for ref in spec.output.steps] or [f"{manifest.name}.inputs"]
        yield from _unmatched(("spec", "output", "tensorMap"), spec.output.tensor_map, sources)


def _unmatched(place: Location, tensor_map: dict[str, str], sources: list[str]) -> Iterator[ManifestFault]:
    topics = {_topic_of(source) for source in sources}
    named = {_topic_of(source) for source in sources if source != _topic_of(source)}
    read = set(sources)
    for key in tensor_map:
        topic = key.rpartition(".")[0]
        # A source that names tensors brings no others.
        if topic not in topics or (topic in named and key not in read):
            yield (*place, key), f"tensorMap key '{key}' matches no input; expected one of the tensors read"


def _topic_of(reference: str) -> str:
    """The reference without the tensor."""
    parts = reference.split(".")
    return ".".join(parts[: 4 if parts[1:2] == ["step"] else 2])


RULES: Mapping[str, Callable[[PipelineManifest], Iterator[ManifestFault]]] = {
    # Core 2's own, in its order.
    "repeated-step": _repeated_steps,
    "pipeline-name": _pipeline_name,
    "no-steps": _no_steps,
    "step-like-pipeline": _step_like_pipeline,
    "reference-form": _reference_forms,
    "unknown-step": _references_exist,
    "output-form": _output_forms,
    "cycle": _cycle,
    "external-input": _external_forms,
    # Manifests that Core 2 accepts but can't run.
    "step-name": _step_names,
    "unknown-trigger": _unknown_triggers,
    "own-output": _own_output_loop,
    "tensor-map": _unmatched_tensor_maps,
}
"""The checks, by the name that the linter reports."""
