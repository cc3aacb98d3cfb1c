"""Draws pipelines as SVG. Graphviz lays the picture out; pygraphviz, of the extra `graph`, brings it along."""

from typing import Any, cast

import pygraphviz

from .drawing import Drawing

_FONT = "Helvetica,Arial,sans-serif"
_LINE = "#52606d"
_VERTICES: dict[str, dict[str, str]] = {
    "request": {"style": "rounded,filled", "fillcolor": "#e3f2e6", "color": "#5b9a68"},
    "step": {"style": "rounded,filled", "fillcolor": "#e8eef7", "color": "#5b7fb0"},
    "join": {
        "shape": "circle",
        "style": "filled",
        "fillcolor": "#fdf3d7",
        "color": "#c9a227",
        "fontsize": "9",
        "margin": "0.02",
    },
    "answer": {"style": "rounded,filled", "fillcolor": "#e3f2e6", "color": "#5b9a68"},
    "elsewhere": {"style": "rounded,dashed", "color": _LINE},
}


def picture(drawing: Drawing) -> bytes:
    """Draw as SVG: solid lines for data, dashed lines for triggers, circles for joins."""
    graph: Any = pygraphviz.AGraph(strict=False, directed=True, rankdir="LR", bgcolor="transparent", fontname=_FONT)
    graph.node_attr.update(shape="box", fontname=_FONT, fontsize="11", margin="0.16,0.08")
    graph.edge_attr.update(fontname=_FONT, fontsize="9", color=_LINE, fontcolor=_LINE, arrowsize="0.7")
    for name, vertices in drawing.pipelines.items():
        frame = graph
        if len(drawing.pipelines) > 1:
            frame = graph.add_subgraph(name=f"cluster_{name}", label=name, style="rounded", color="#c3cad1")
        for vertex in vertices:
            frame.add_node(vertex.id, label=vertex.label, **_VERTICES[vertex.kind])
    for vertex in drawing.elsewhere:
        graph.add_node(vertex.id, label=vertex.label, **_VERTICES[vertex.kind])
    for index, edge in enumerate(drawing.edges):
        style = "dashed" if edge.is_trigger else "solid"
        graph.add_edge(edge.source, edge.target, key=str(index), label=_label(edge.tensors), style=style)
    return cast(bytes, graph.draw(format="svg", prog="dot"))


def _label(tensors: tuple[str, ...]) -> str:
    """Write one line for each tensor, without characters that Graphviz would interpret."""
    return "".join(f" {_plain(tensor)} \\n" for tensor in tensors)


def _plain(tensor: str) -> str:
    return tensor.replace("\\", "\\\\").replace("&", "&amp;").replace("\n", " ")
