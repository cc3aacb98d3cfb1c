"""Checks that involve several models of a repository."""

import filecmp
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlserver_chat import SettingsError, SiblingSettings
from mlserver_pipeline import PipelineSettings, read_manifests
from mlserver_pipeline.manifests.documents import Location, dotted
from mlserver_pipeline.manifests.manifest import PipelineManifest

from .findings import Finding, error, warning
from .manifests import manifest_files
from .models import CheckedModel


def check_names(models: Sequence[CheckedModel]) -> Iterator[Finding]:
    """Find models with the same name and version."""
    first: dict[tuple[str, str | None], Path] = {}
    for model in models:
        if model.settings is None:
            continue
        key = (model.settings.name, model.settings.version)
        other = first.setdefault(key, model.path)
        if other is not model.path:
            yield error(
                model.path, "name", f"'name' is '{key[0]}', as in {other}; MLServer would serve only one of them"
            )


def check_modules(models: Sequence[CheckedModel]) -> Iterator[Finding]:
    """Find different modules of the same name. MLServer loads the second one over the first, and both models run it."""
    first: dict[str, Path] = {}
    for model in models:
        if model.settings is None:
            continue
        module = model.settings.implementation_.rpartition(".")[0]
        file = model.path.parent / f"{module.replace('.', '/')}.py"
        if not file.is_file():
            continue
        other = first.setdefault(module, file)
        if not filecmp.cmp(other, file, shallow=False):
            sentence = f"module '{module}' differs from {other}, which it would replace in MLServer; rename one of them"
            yield error(model.path, "implementation", sentence)


def check_processes(models: Sequence[CheckedModel], workers: int) -> Iterator[Finding]:
    """Find models that can't work in their process, if the server has `workers` worker processes.

    A model whose own `parallel_workers` is 0 runs in the main process, which worker processes can't call.
    """
    in_worker = {
        # `vars` avoids the warning about the deprecated field, which Core 2's agent still writes.
        model.settings.name: workers > 0 and vars(model.settings)["parallel_workers"] != 0
        for model in models
        if model.settings is not None
    }
    for model in models:
        if model.settings is None or not in_worker[model.settings.name]:
            continue
        config = model.config
        if isinstance(config, PipelineSettings):
            yield error(
                model.path,
                "parallel_workers",
                "a pipeline can't run in a worker process; set 'parallel_workers' to 0 here or in settings.json",
            )
        elif isinstance(config, SiblingSettings) and config.calls_llm and not in_worker.get(config.llm or "", True):
            yield error(
                model.path,
                "parallel_workers",
                f"'{config.llm}' runs in the main process, which a model in a worker process can't call; "
                "set 'parallel_workers' to 0 here too",
            )


def check_reads(models: Sequence[CheckedModel]) -> Iterator[Finding]:
    """Find pipelines that read a tensor which the step never emits, e.g. an unknown route of a classifier."""
    emits = {model.settings.name: model.emits for model in models if model.settings is not None and model.emits}
    for model in models:
        if not isinstance(model.config, PipelineSettings) or model.emits is None:
            continue
        for path in manifest_files(model.config, model.path.parent):
            yield from _check_manifest_reads(path, emits)


def _check_manifest_reads(path: Path, emits: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    try:
        manifests = read_manifests(path)
    except SettingsError:
        return
    for loaded in manifests:
        for location, reference in _references(loaded.manifest):
            step, _, side_and_tensor = reference.partition(".")
            side, _, tensor = side_and_tensor.partition(".")
            if side == "outputs" and tensor and tensor not in emits.get(step, {tensor}):
                place = path.parent / loaded.document.position(location)
                yield warning(
                    place, dotted(location), f"'{reference}' never arrives, because '{step}' emits no tensor '{tensor}'"
                )


def _references(manifest: PipelineManifest) -> Iterator[tuple[Location, str]]:
    for index, step in enumerate(manifest.spec.steps):
        for field, references in (("inputs", step.inputs), ("triggers", step.triggers)):
            for position, reference in enumerate(references):
                yield ("spec", "steps", index, field, position), reference
    for position, reference in enumerate(manifest.spec.output.steps if manifest.spec.output else ()):
        yield ("spec", "output", "steps", position), reference
