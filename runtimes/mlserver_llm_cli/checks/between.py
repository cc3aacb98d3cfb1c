"""What is wrong between the models of a repository."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mlserver_chat import SiblingSettings
from mlserver_pipeline import PipelineSettings

from .findings import Finding, error
from .models import CheckedModel


def check_names(models: Sequence[CheckedModel]) -> Iterator[Finding]:
    """Two models of one name and version."""
    first: dict[tuple[str, str | None], Path] = {}
    for model in models:
        if model.settings is None:
            continue
        key = (model.settings.name, model.settings.version)
        other = first.setdefault(key, model.path)
        if other is not model.path:
            yield error(model.path, "name", f"'name' is '{key[0]}', as in {other}; MLServer would serve one of the two")


def check_processes(models: Sequence[CheckedModel], workers: int) -> Iterator[Finding]:
    """Models that can't do their work in the process where MLServer puts them, with `workers` worker processes.

    A model whose own `parallel_workers` is 0 stays in the main process. From a worker process it can't be reached.
    """
    in_worker = {
        # By `vars`, since MLServer marks the field as deprecated; Core 2's agent still writes it.
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
                f"'{config.llm}' runs in the main process, where a model in a worker process can't reach it; "
                "set 'parallel_workers' to 0 here too",
            )
