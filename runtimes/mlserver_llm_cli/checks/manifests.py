"""Pipeline manifests, as the pipeline runtime reads them: all faults instead of the first."""

import os
from collections.abc import Collection
from pathlib import Path

from mlserver_chat import SettingsError
from mlserver_pipeline import PipelineManifest, PipelineSettings
from mlserver_pipeline.documents import Document, Location, dotted, read_documents
from mlserver_pipeline.manifest import shape_faults
from mlserver_pipeline.validation import faults

from .findings import Finding, error


def check_manifest(path: Path, models: Collection[str] | None = None) -> list[Finding]:
    """The faults of the Pipelines in a manifest file; with `models`, also the steps that are none of these."""
    try:
        documents = read_documents(path)
    except SettingsError as failure:
        return [error(path, "", str(failure))]
    return [
        error(path.parent / document.place(location), dotted(location), sentence)
        for document in documents
        if document.content.get("kind", "Pipeline") == "Pipeline"
        for location, sentence in _faults(document, models)
    ]


def _faults(document: Document, models: Collection[str] | None) -> list[tuple[Location, str]]:
    found = shape_faults(document)
    if found:
        return found
    manifest = PipelineManifest.model_validate(document.content)
    found = list(faults(manifest))
    for index, step in enumerate(manifest.spec.steps):
        if models is not None and step.name not in models:
            found.append((("spec", "steps", index, "name"), f"step '{step.name}' is no model of the repository"))
    return found


def manifest_files(config: PipelineSettings, folder: Path) -> list[Path]:
    """The manifest files that a pipeline's settings name."""
    names = [config.manifest] if isinstance(config.manifest, str) else config.manifest
    return [Path(os.path.normpath(folder / name)) for name in names]


def is_manifest(path: Path) -> bool:
    """Whether a YAML file holds a Pipeline."""
    try:
        return "kind: Pipeline" in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
