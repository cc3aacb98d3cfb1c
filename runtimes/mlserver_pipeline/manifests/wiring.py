"""Checks which tensors reach which step, and which joins can't complete.

Only tensors that `model-settings.json` declares are checked. A model that declares none is never wrong.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mlserver_chat.files import UnreadableFile, find_files, read_json

from .graph import Graph, Node, compile_graph
from .manifest import PipelineManifest
from .references import Source, Topic
from .validation import ManifestFault


@dataclass(frozen=True)
class ModelTensors:
    """The names of the tensors that a model declares; empty if it declares none."""

    inputs: frozenset[str]
    outputs: frozenset[str]


def repository_tensors(folder: Path) -> dict[str, ModelTensors]:
    """Read the tensors that the models of a repository declare, by model. Settings that can't be read are skipped."""
    found: dict[str, ModelTensors] = {}
    for path in find_files(folder).named("model-settings.json"):
        try:
            settings = read_json(path)
            names = [_names(settings.get(side)) for side in ("inputs", "outputs")]
            found[settings["name"]] = ModelTensors(*names)
        except (UnreadableFile, KeyError, TypeError, AttributeError):
            continue
    return found


def _names(tensors: object) -> frozenset[str]:
    return frozenset(str(tensor["name"]) for tensor in cast(list[Any], tensors or []))


Found = tuple[str, ManifestFault]
"""The name of a rule, and the fault that it found."""


def wiring_findings(manifest: PipelineManifest, models: Mapping[str, ModelTensors] | None) -> Iterator[Found]:
    """Yield findings about the tensors of a valid manifest; without `models` only about its joins."""
    graph = compile_graph(manifest)
    locations = _Locations(manifest)
    yield from _routes(graph, locations)
    for node in graph.nodes if models is not None else ():
        if models is not None and node.calls_model:
            yield from _known_tensors(node, models, locations)
            yield from _own_tensors(node, models, locations)


class _Locations:
    """The locations of nodes in a manifest."""

    def __init__(self, manifest: PipelineManifest):
        self._steps = {step.name: index for index, step in enumerate(manifest.spec.steps)}

    def of(self, node: Node, field: str) -> tuple[str | int, ...]:
        """The location of a step's field, or of the output."""
        if not node.calls_model:
            return ("spec", "output")
        return ("spec", "steps", self._steps[node.name], field)


def _known_tensors(node: Node, models: Mapping[str, ModelTensors], locations: _Locations) -> Iterator[Found]:
    if node.name not in models:
        yield "unknown-model", (locations.of(node, "name"), f"step '{node.name}' is no model of the repository")
    for field, sources in (("inputs", node.sources), ("triggers", node.triggers)):
        for source in sources:
            declared = models.get(source.topic.owner)
            if source.topic.side != "outputs" or declared is None or not declared.outputs:
                continue
            for tensor in source.tensors:
                if tensor not in declared.outputs:
                    yield (
                        "unknown-tensor",
                        (
                            locations.of(node, field),
                            f"step '{node.name}' reads {source.topic}.{tensor}, which model '{source.topic.owner}' "
                            "does not declare",
                        ),
                    )


def _own_tensors(node: Node, models: Mapping[str, ModelTensors], locations: _Locations) -> Iterator[Found]:
    brought = [_brought(node, source, models) for source in node.sources]
    known = [names for names in brought if names is not None]
    needed = models[node.name].inputs if node.name in models else frozenset[str]()
    if len(known) == len(brought):
        for tensor in sorted(needed - frozenset[str]().union(*known)):
            yield (
                "missing-tensor",
                (locations.of(node, "inputs"), f"no source of step '{node.name}' brings the tensor '{tensor}'"),
            )
    if node.join == "any":
        return
    for tensor in sorted(_twice(known)):
        yield (
            "ambiguous-tensor",
            (locations.of(node, "inputs"), f"several sources of step '{node.name}' bring the tensor '{tensor}'"),
        )


def _brought(node: Node, source: Source, models: Mapping[str, ModelTensors]) -> frozenset[str] | None:
    """The names under which the tensors of a source reach the node; None if they are unknown."""
    renamed = node.renames.get(source.topic, {})
    names: frozenset[str] | tuple[str, ...] = source.tensors
    if not names and source.topic.side == "outputs" and source.topic.owner in models:
        names = models[source.topic.owner].outputs
    return frozenset(renamed.get(name, name) for name in names) if names else None


def _twice(groups: list[frozenset[str]]) -> set[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for names in groups:
        twice |= seen & names
        seen |= names
    return twice


Route = Mapping[Topic, frozenset[str]]
"""The condition for a node to fire: for each topic, one of these tensors must arrive."""


def _routes(graph: Graph, locations: _Locations) -> Iterator[Found]:
    """Find joins of two routes of which a request takes only one, and outputs that only one route reaches."""
    routes: dict[Topic, Route] = {}
    for node in graph.nodes:
        parts = [_route_to(source, routes) for source in node.sources]
        clash = _clash(parts) if node.join == "inner" else None
        if clash is not None:
            left, right = clash
            sentence = (
                f"{_label(node)} joins a source that needs {left} with one that needs {right}, and only one comes"
            )
            yield "never-joins", (locations.of(node, "inputs"), sentence)
        routes[node.sink] = _together(node, parts) if clash is None else {}
        if node.sink == graph.outputs and routes[node.sink]:
            needs = " and ".join(_named(topic, tensors) for topic, tensors in routes[node.sink].items())
            yield "may-stall", (locations.of(node, "steps"), f"the output needs {needs}, which doesn't always come")


def _route_to(source: Source, routes: Mapping[Topic, Route]) -> Route:
    return routes.get(source.topic._replace(side="inputs"), {})


def _clash(parts: list[Route]) -> tuple[str, str] | None:
    seen: dict[Topic, dict[frozenset[str], None]] = {}
    for part in parts:
        for topic, tensors in part.items():
            earlier = seen.setdefault(topic, {})
            if tensors in earlier:
                continue
            for other in earlier:
                if not other & tensors:
                    return _named(topic, other), _named(topic, tensors)
            earlier[tensors] = None
    return None


def _together(node: Node, parts: list[Route]) -> Route:
    """Combine the routes of a node's sources, all of them or any one, with its triggers."""
    route: dict[Topic, frozenset[str]] = {}
    if node.join == "inner":
        for part in parts:
            route |= part
    else:
        # A join of any kind but inner needs a topic only if all of its sources need it in the same way.
        shared = set[Topic]().union(*parts)
        for topic in shared:
            tensors = [part.get(topic) for part in parts]
            if len({each for each in tensors if each}) == 1 and None not in tensors:
                route[topic] = frozenset[str]().union(*(each for each in tensors if each))
    if node.triggers_join == "inner" or len(node.triggers) == 1:
        # The caller decides which triggers the request brings.
        triggers = [source for source in node.triggers if source.topic.owner != source.topic.pipeline]
        route |= {source.topic: frozenset(source.tensors) for source in triggers if source.tensors}
    return route


def _named(topic: Topic, tensors: frozenset[str]) -> str:
    return " or ".join(f"{topic}.{tensor}" for tensor in sorted(tensors))


def _label(node: Node) -> str:
    return f"step '{node.name}'" if node.calls_model else "the output"
