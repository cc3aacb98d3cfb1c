"""Pipelines as a Mermaid flowchart, which GitHub and most editors draw."""

from collections.abc import Iterator

from .drawing import Drawing, Edge, Vertex

_SHAPES = {
    "request": ('(["', '"])'),
    "step": ('["', '"]'),
    "join": ('(("', '"))'),
    "answer": ('(["', '"])'),
    "elsewhere": ('[["', '"]]'),
}


def flowchart(drawing: Drawing) -> str:
    """Solid lines are data, dotted lines triggers, circles joins, labels the tensors that are read."""
    return "\n".join(_lines(drawing)) + "\n"


def _lines(drawing: Drawing) -> Iterator[str]:
    yield "flowchart LR"
    for name, vertices in drawing.pipelines.items():
        framed = len(drawing.pipelines) > 1
        if framed:
            yield f'  subgraph frame_{name}["{name}"]'
        yield from (f"  {_vertex(vertex)}" for vertex in vertices)
        if framed:
            yield "  end"
    yield from (f"  {_vertex(vertex)}" for vertex in drawing.elsewhere)
    yield from (f"  {_edge(edge)}" for edge in drawing.edges)


def _vertex(vertex: Vertex) -> str:
    left, right = _SHAPES[vertex.kind]
    return f"{_id(vertex.id)}{left}{vertex.label}{right}"


def _edge(edge: Edge) -> str:
    arrow = "-.->" if edge.is_trigger else "-->"
    label = f'|"{", ".join(map(_text, edge.tensors))}"| ' if edge.tensors else " "
    return f"{_id(edge.source)} {arrow}{label}{_id(edge.target)}"


def _id(name: str) -> str:
    """A name that is no word of Mermaid's, and without dots."""
    return name.replace(".", "_")


def _text(tensor: str) -> str:
    """A tensor's name, which may hold anything, between quotation marks."""
    return tensor.replace("#", "#35;").replace('"', "#quot;")
