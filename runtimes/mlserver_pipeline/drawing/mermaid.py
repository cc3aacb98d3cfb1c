"""Writes pipelines as a Mermaid flowchart, which GitHub and most editors display."""

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
    """Write a drawing as a flowchart: solid lines for data, dotted lines for triggers, circles for joins."""
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
    """An id for Mermaid, which has no dots and is no keyword."""
    return name.replace(".", "_")


def _text(tensor: str) -> str:
    """Escape a tensor's name, which may contain any character, for use in quotation marks."""
    return tensor.replace("#", "#35;").replace('"', "#quot;")
