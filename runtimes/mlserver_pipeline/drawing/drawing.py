"""Turns pipelines into vertices and edges: requests, steps, joins, answers, and the tensors between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..manifests.graph import Graph, Node
from ..manifests.manifest import JoinType
from ..manifests.references import Source, Topic

Kind = Literal["request", "step", "join", "answer", "elsewhere"]
"""The start of a pipeline, a model, a join of several sources, the end, or a pipeline that isn't loaded."""


@dataclass(frozen=True)
class Vertex:
    """A vertex of the picture. Its `id` is unique and contains no `_`."""

    id: str
    kind: Kind
    label: str


@dataclass(frozen=True)
class Edge:
    """An edge of the picture: the target reads `tensors` of the source, or all without names.

    A renamed tensor is written `old → new`.
    """

    source: str
    target: str
    tensors: tuple[str, ...] = ()
    is_trigger: bool = False


@dataclass(frozen=True)
class Drawing:
    """The vertices by pipeline, the vertices of pipelines that aren't loaded, and all edges."""

    pipelines: Mapping[str, Sequence[Vertex]]
    elsewhere: Sequence[Vertex]
    edges: Sequence[Edge]


def draw(graphs: Sequence[Graph]) -> Drawing:
    """Draw pipelines that are loaded together."""
    pipelines = {graph.name: list(_vertices(graph)) for graph in graphs}
    edges = [edge for graph in graphs for node in graph.nodes for edge in _edges(node)]
    known = {vertex.id for vertices in pipelines.values() for vertex in vertices}
    unknown = dict.fromkeys(end for edge in edges for end in (edge.source, edge.target) if end not in known)
    elsewhere = [Vertex(each, "elsewhere", each.replace(".outputs", "").replace(".inputs", "")) for each in unknown]
    return Drawing(pipelines, elsewhere, edges)


def _vertices(graph: Graph) -> Iterator[Vertex]:
    yield Vertex(str(graph.inputs), "request", graph.name)
    for node in graph.nodes:
        for role, sources, join in _joined(node):
            if len(sources) > 1:
                yield Vertex(_join_id(node, role), "join", join)
        if node.calls_model:
            yield Vertex(_written_by(node.sink), "step", node.name)
    if graph.answers:
        yield Vertex(str(graph.outputs), "answer", "answer")


def _edges(node: Node) -> Iterator[Edge]:
    target = _written_by(node.sink)
    for role, sources, _ in _joined(node):
        is_trigger = role == "triggers"
        end = _join_id(node, role) if len(sources) > 1 else target
        for source in sources:
            yield Edge(_written_by(source.topic), end, _tensors(node, source, is_trigger), is_trigger)
        if end != target:
            yield Edge(end, target, (), is_trigger)


def _joined(node: Node) -> Iterator[tuple[str, Sequence[Source], JoinType]]:
    yield "inputs", node.sources, node.join
    yield "triggers", node.triggers, node.triggers_join


def _join_id(node: Node, role: str) -> str:
    return f"{node.sink.pipeline}.{node.name}.{node.sink.side}.join.{role}"


def _written_by(topic: Topic) -> str:
    """The id of the vertex that a topic belongs to. A step has one vertex for its inputs and outputs."""
    return str(topic) if topic.owner == topic.pipeline else f"{topic.pipeline}.step.{topic.owner}"


def _tensors(node: Node, source: Source, is_trigger: bool) -> tuple[str, ...]:
    renamed: Mapping[str, str] = {} if is_trigger else node.renames.get(source.topic, {})
    names = source.tensors or (*renamed, *(("…",) if renamed else ()))
    shown = tuple(f"{name} → {renamed[name]}" if name in renamed else name for name in names)
    is_sent = source.topic.side == "inputs" and source.topic.owner != source.topic.pipeline
    return (f"sent to {source.topic.owner}", *shown) if is_sent else shown
