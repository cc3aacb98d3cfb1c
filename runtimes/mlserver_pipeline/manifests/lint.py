"""Lints manifests: finds all errors, and warns about probable mistakes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlserver_chat import SettingsError

from .advice import ADVICE
from .crds import MODEL_RULES, Model, Server, resource_of, scaling_faults
from .documents import Document, Location, dotted, read_documents
from .experiments import Experiment, experiment_faults
from .manifest import PipelineManifest, Resource, shape_faults
from .validation import RULES, ManifestFault
from .wiring import ModelTensors, wiring_findings

FIXES = {
    "unreadable": "make it a YAML file of Kubernetes resources",
    "schema": "use the fields of the resource; `mlserver-llm pipeline schema` prints them",
    "repeated-step": "a model can be only one step; deploy it under a second name",
    "pipeline-name": "use lower-case letters, digits and '-'",
    "no-steps": "name at least one step",
    "step-like-pipeline": "rename the pipeline",
    "reference-form": "write <step or pipeline>.<inputs|outputs>[.<tensor>]",
    "unknown-step": "name a step of this pipeline, or the pipeline itself",
    "output-form": "write <step>[.<inputs|outputs>[.<tensor>]]",
    "cycle": "break it, or set allowCycles and maxStepRevisits",
    "external-input": "write <pipeline>.<inputs|outputs>[.<tensor>], or <pipeline>.step.<step> in place of <pipeline>",
    "step-name": "rename the model and the step",
    "unknown-trigger": "name a step of this pipeline; Core 2's scheduler crashes on this",
    "own-output": "read the step that makes the tensor instead",
    "tensor-map": "write the key as <step or pipeline>.<inputs|outputs>.<tensor>, for a tensor that is read",
    "no-output": "add spec.output.steps, or call it only through other pipelines",
    "unused-step": "read it, put it into the output, or drop it",
    "trigger-either": "if both are needed, let one step emit a tensor for that",
    "input-is-trigger": "drop the trigger; the input alone has the same effect",
    "batch-ignored": "drop batch, or give the step one source",
    "batch-fields": "drop windowMs and rolling; only size is used",
    "outer-waits": "use inner or any, or make sure that every source always comes",
    "experiment": "see the Experiment resource in Core 2's documentation",
    "model-name": "use lower-case letters, digits and '-'",
    "model-llm": "name the LLM by modelRef, or a pipeline by pipelineRef, and no explainer",
    "replicas": "let replicas lie between minReplicas and maxReplicas",
    "unknown-model": "add the model to the repository, or correct the name",
    "unknown-tensor": "name a tensor that the model declares among its outputs",
    "missing-tensor": "read a step that emits it, or rename one by tensorMap",
    "ambiguous-tensor": "name the tensors to read, or rename one by tensorMap",
    "never-joins": "join with any, since a request takes only one of the two routes",
    "may-stall": "give the other route a way to the output, joined with any",
}
"""How to fix a finding, by rule."""


@dataclass(frozen=True)
class Finding:
    """An error or warning about a manifest."""

    level: Literal["error", "warning"]
    rule: str
    file: str
    line: int
    key: str
    sentence: str
    fix: str


def lint_file(path: Path, models: Mapping[str, ModelTensors] | None = None) -> list[Finding]:
    """Lint the resources of a file.

    Args:
        path: the file.
        models: the tensors of the models of a repository. With it, the wiring of tensors is checked too.
    """
    try:
        documents = read_documents(path)
    except SettingsError as error:
        return [Finding("error", "unreadable", str(path), 1, "", str(error), FIXES["unreadable"])]
    return [finding for document in documents for finding in _lint_document(document, models)]


def _lint_document(document: Document, models: Mapping[str, ModelTensors] | None) -> Iterable[Finding]:
    kind = resource_of(document)
    if kind is None:
        return []
    shape = shape_faults(document, kind)
    if shape:
        return [_finding(document, "error", "schema", *fault) for fault in shape]
    resource = kind.model_validate(document.content)
    errors = [_finding(document, "error", rule, *fault) for rule, fault in _refused(resource)]
    if errors or not isinstance(resource, PipelineManifest):
        # Warnings need a valid graph.
        return errors
    return [_finding(document, level, rule, *fault) for level, rule, fault in _warnings(resource, models)]


def _refused(resource: Resource) -> Iterator[tuple[str, ManifestFault]]:
    """Yield the faults that Core 2 refuses, each with its rule."""
    if isinstance(resource, PipelineManifest):
        yield from ((rule, fault) for rule, check in RULES.items() for fault in check(resource))
    elif isinstance(resource, Experiment):
        yield from (("experiment", (("spec",), sentence)) for sentence in experiment_faults(resource))
    elif isinstance(resource, Model):
        yield from ((rule, fault) for rule, check in MODEL_RULES.items() for fault in check(resource))
    elif isinstance(resource, Server):
        yield from (("replicas", fault) for fault in scaling_faults(resource))


def _warnings(
    manifest: PipelineManifest, models: Mapping[str, ModelTensors] | None
) -> Iterator[tuple[Literal["error", "warning"], str, tuple[Location, str]]]:
    for rule, check in ADVICE.items():
        for fault in check(manifest):
            yield "warning", rule, fault
    for rule, fault in wiring_findings(manifest, models):
        yield "error" if rule == "unknown-model" else "warning", rule, fault


def _finding(
    document: Document, level: Literal["error", "warning"], rule: str, location: Location, sentence: str
) -> Finding:
    line = int(document.position(location).rpartition(":")[2])
    return Finding(level, rule, str(document.path), line, dotted(location), sentence, FIXES[rule])
