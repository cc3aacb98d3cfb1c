"""A pipeline as a Mermaid flowchart, which GitHub and most editors draw."""

from .graph import Graph, Node
from .references import Source


def flowchart(graph: Graph) -> str:
    """The graph: solid lines are data, dotted lines triggers, labels the tensors that are read."""
    lines = ["flowchart LR", f'  request(["{graph.name}"])']
    lines += [f'  {_id(graph, node.name)}["{node.name}"]' for node in graph.nodes if node.calls_model]
    if graph.answers:
        lines.append("  answer([answer])")
    for node in graph.nodes:
        target = "answer" if node.sink == graph.outputs else _id(graph, node.name)
        lines += [_edge(graph, source, target, "-->", _join(node)) for source in node.sources]
        lines += [_edge(graph, source, target, "-.->", "") for source in node.triggers]
    return "\n".join(lines) + "\n"


def _edge(graph: Graph, source: Source, target: str, arrow: str, join: str) -> str:
    inputs = ["sent"] if source.topic.side == "inputs" and source.topic.owner != graph.name else []
    label = ", ".join([*inputs, *source.tensors, *([join] if join else [])])
    return f"  {_id(graph, source.topic.owner)} {arrow}" + (f'|"{label}"| ' if label else " ") + target


def _join(node: Node) -> str:
    return f"({node.join})" if node.join != "inner" and len(node.sources) > 1 else ""


def _id(graph: Graph, name: str) -> str:
    """A name that is no word of Mermaid's."""
    return "request" if name == graph.name else f"step-{name}"
