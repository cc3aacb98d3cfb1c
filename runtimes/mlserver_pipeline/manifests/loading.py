"""Loads manifest files as graphs that can run."""

import logging
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import cast

from mlserver_chat import SettingsError

from .experiments import Experiment, read_experiments
from .graph import Graph, compile_graph
from .manifest import read_manifests
from .validation import check

logger = logging.getLogger("mlserver.pipeline")


def load_graphs(manifests: str | list[str], folder: Path) -> list[Graph]:
    """Load the pipelines of one or several manifest files.

    Args:
        manifests: paths of the files, relative to `folder`.
        folder: the folder of `model-settings.json`.

    Raises:
        SettingsError: a manifest has a fault. The sentence has file, line and key.
    """
    graphs = [compile_graph(check(loaded)) for path in _paths(manifests, folder) for loaded in read_manifests(path)]
    _check_together(graphs)
    return graphs


def load_experiments(manifests: str | list[str], folder: Path) -> list[Experiment]:
    """Load the Experiments of the same manifest files. Arguments and errors are those of `load_graphs`."""
    return read_experiments(_paths(manifests, folder))


def _paths(manifests: str | list[str], folder: Path) -> list[Path]:
    return [folder / path for path in ([manifests] if isinstance(manifests, str) else manifests)]


def _check_together(graphs: Sequence[Graph]) -> None:
    names = [graph.name for graph in graphs]
    if not names:
        raise SettingsError("'manifest' names no file with a Pipeline")
    for graph in graphs:
        if names.count(graph.name) > 1:
            raise SettingsError(f"the manifests contain pipeline '{graph.name}' twice")
        for other in sorted(graph.reads - set(names)):
            logger.warning(
                "pipeline '%s' reads pipeline '%s', which is not loaded with it, so it gets no messages from there",
                graph.name,
                other,
            )
    try:
        TopologicalSorter({graph.name: graph.reads for graph in graphs}).prepare()
    except CycleError as error:
        circle = " → ".join(cast(list[str], error.args[1]))
        raise SettingsError(f"pipelines read one another in a circle and would run forever: {circle}") from None
