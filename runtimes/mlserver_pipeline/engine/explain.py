"""Simulates a pipeline without models: every step answers the tensors that are expected of it."""

from collections.abc import Mapping, Sequence

from ..manifests.graph import Graph
from .engine import Answer, Engine, Failure, Run
from .messages import StepMessage, Tensor
from .trace import NodeTrace


async def explain(
    graph: Graph, inputs: Sequence[str], emits: Mapping[str, Sequence[str]]
) -> tuple[list[NodeTrace], str]:
    """Simulate a request.

    Args:
        graph: the pipeline.
        inputs: the names of the request's tensors.
        emits: the names of the tensors that a step answers; by default all that others read of it.

    Returns:
        The trace of each node, and the outcome in one sentence.
    """

    async def call(step: str, _: StepMessage, headers: Mapping[str, str]) -> tuple[StepMessage, Mapping[str, str]]:
        return _message(emits.get(step, _read_of(graph, step))), headers

    run: Run = Engine([graph], call).start(graph.name, _message(inputs), {}, "explain")
    await run.done
    outcome = run.outcome.result()
    if isinstance(outcome, Answer):
        return run.traces, f"answers {', '.join(tensor.name for tensor in outcome.message.tensors)}"
    return run.traces, f"{'fails' if isinstance(outcome, Failure) else 'gets no answer'}: {outcome.text}"


def _message(names: Sequence[str]) -> StepMessage:
    return StepMessage("", {}, tuple(Tensor(name, "BYTES", (1, 1), [b""], {}) for name in names))


def _read_of(graph: Graph, step: str) -> list[str]:
    """The tensors that others read of a step's outputs; `…` stands for outputs that are read as a whole."""
    sources = [source for node in graph.nodes for source in (*node.sources, *node.triggers)]
    read = [source for source in sources if source.topic.owner == step and source.topic.side == "outputs"]
    names = list(dict.fromkeys(name for source in read for name in source.tensors))
    return names if names and all(source.tensors for source in read) else [*names, "…"]
