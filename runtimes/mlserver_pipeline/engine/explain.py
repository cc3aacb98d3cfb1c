"""What would fire for given tensors, without a model: every step answers the tensors that it is expected to."""

from collections.abc import Mapping, Sequence

from ..manifests.graph import Graph
from .engine import Answer, Engine, Failure, Run
from .messages import StepMessage, Tensor
from .trace import NodeTrace


async def explain(
    graph: Graph, inputs: Sequence[str], emits: Mapping[str, Sequence[str]]
) -> tuple[list[NodeTrace], str]:
    """What happens at each step when a request brings the tensors `inputs`, and what comes of it.

    A step answers the tensors that `emits` gives for it, else all that somebody reads of it.
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
    """The tensors of a step's outputs that are read; something, when they are only read as a whole."""
    sources = [source for node in graph.nodes for source in (*node.sources, *node.triggers)]
    read = [source for source in sources if source.topic.owner == step and source.topic.side == "outputs"]
    names = list(dict.fromkeys(name for source in read for name in source.tensors))
    return names if names and all(source.tensors for source in read) else [*names, "…"]
