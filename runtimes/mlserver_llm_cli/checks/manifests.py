"""Checks manifests by the rules of `mlserver-llm pipeline lint`."""

import os
from pathlib import Path

from mlserver import ModelSettings

from mlserver_chat import settings_folder
from mlserver_chat.calls.siblings import repository_models
from mlserver_pipeline import PipelineSettings
from mlserver_pipeline.manifests.lint import lint_file
from mlserver_pipeline.manifests.wiring import ModelTensors, repository_tensors

from .findings import Finding


def check_manifest(path: Path, owner: ModelSettings | None = None) -> list[Finding]:
    """Return the linter's findings about a file.

    Args:
        path: the manifest.
        owner: settings of the pipeline that names the file. With them, the findings also cover the repository's models:
            whether each step has one, and whether the declared tensors fit together.
    """
    return [
        Finding(found.level, f"{path}:{found.line}", found.key, f"{found.sentence}; {found.fix}")
        for found in lint_file(path, None if owner is None else _models(owner))
    ]


def _models(owner: ModelSettings) -> dict[str, ModelTensors]:
    declared = repository_tensors(settings_folder(owner).parent)
    unknown = ModelTensors(frozenset(), frozenset())
    return {name: declared.get(name, unknown) for name in repository_models(owner)}


def manifest_files(config: PipelineSettings, folder: Path) -> list[Path]:
    """Return the manifest files that the settings of a pipeline name."""
    names = [config.manifest] if isinstance(config.manifest, str) else config.manifest
    return [Path(os.path.normpath(folder / name)) for name in names]
