"""Compiles a manifest to the graph of streams that Core 2's dataflow engine would build."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .manifest import Input, JoinType, Output, PipelineManifest, Step
from .references import Renames, Source, Topic, group, parse, parse_external, with_default, with_external_default

DEFAULT_WINDOW_MS = 60_000
"""Default of `joinWindowMs`: how far apart joined messages may be, in milliseconds."""


@dataclass(frozen=True)
class Node:
    """A stream that joins its sources and writes to a topic. `name` is a step's, or the pipeline's."""

    name: str
    sink: Topic
    sources: tuple[Source, ...]
    triggers: tuple[Source, ...] = ()
    renames: Renames = field(default_factory=dict[Topic, Mapping[str, str]])
    join: JoinType = "inner"
    triggers_join: JoinType = "inner"
    window: int = DEFAULT_WINDOW_MS
    batch: int = 0
    """Rows of a batch, 0 without batching. Only steps with a single source are batched."""
    max_visits: int | None = None
    """How often one request may pass; None for any number of times."""
    calls_model: bool = False
    """Whether the joined message is sent to the model `name`."""


@dataclass(frozen=True)
class Graph:
    """The nodes of one pipeline, upstream nodes first."""

    name: str
    nodes: tuple[Node, ...]

    @property
    def inputs(self) -> Topic:
        """The topic of the requests."""
        return Topic(self.name, self.name, "inputs")

    @property
    def outputs(self) -> Topic:
        """The topic of the answers."""
        return Topic(self.name, self.name, "outputs")

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps."""
        return tuple(node.name for node in self.nodes if node.calls_model)

    def behind(self, step: str) -> set[Topic]:
        """The topics that messages of a step can reach."""
        found: set[Topic] = set()
        pending = [Topic(self.name, step, "inputs")]
        while pending:
            sink = pending.pop()
            # Other steps may read the inputs of a step as well as its outputs.
            for topic in (sink, sink._replace(side="outputs")):
                reached = self._readers.get(topic, set()) - found
                found |= reached
                pending += reached
        return found

    @cached_property
    def _readers(self) -> Mapping[Topic, set[Topic]]:
        """For each topic, the topics that its readers write to."""
        readers: dict[Topic, set[Topic]] = {}
        for node in self.nodes:
            for source in (*node.sources, *node.triggers):
                readers.setdefault(source.topic, set()).add(node.sink)
        return readers

    @property
    def reads(self) -> frozenset[str]:
        """The names of the pipelines whose messages become inputs of this one."""
        inputs = [node for node in self.nodes if node.sink == self.inputs]
        return frozenset(source.topic.pipeline for node in inputs for source in (*node.sources, *node.triggers))

    @property
    def answers(self) -> bool:
        """Whether the pipeline has an output, so that a caller gets an answer."""
        return any(node.sink == self.outputs for node in self.nodes)


def compile_graph(manifest: PipelineManifest) -> Graph:
    """Compile a valid manifest."""
    name, spec = manifest.name, manifest.spec
    limit = spec.max_step_revisits + 1 if spec.allow_cycles else None
    nodes: list[Node] = []
    if spec.input is not None:
        nodes.append(_input_node(name, spec.input, limit))
    nodes += _upstream_first([_step_node(name, step, limit) for step in spec.steps])
    if spec.output is not None:
        nodes.append(_output_node(name, spec.output, limit))
    return Graph(name, tuple(nodes))


def _step_node(pipeline: str, step: Step, limit: int | None) -> Node:
    inputs = step.inputs or [pipeline]
    sources = group([parse(with_default(reference, pipeline), pipeline) for reference in inputs])
    return Node(
        name=step.name,
        sink=Topic(pipeline, step.name, "inputs"),
        sources=sources,
        triggers=group([parse(with_default(reference, pipeline), pipeline) for reference in step.triggers]),
        renames=_renames(step.tensor_map, pipeline),
        join=step.inputs_join_type,
        triggers_join=step.triggers_join_type,
        window=step.join_window_ms or DEFAULT_WINDOW_MS,
        batch=step.batch.size if len(sources) == 1 else 0,
        max_visits=limit,
        calls_model=True,
    )


def _output_node(pipeline: str, output: Output, limit: int | None) -> Node:
    steps = output.steps or [pipeline]
    return Node(
        name=pipeline,
        sink=Topic(pipeline, pipeline, "outputs"),
        sources=group([parse(with_default(reference, pipeline), pipeline) for reference in steps]),
        renames=_renames(output.tensor_map, pipeline),
        join=output.steps_join,
        window=output.join_window_ms or DEFAULT_WINDOW_MS,
        max_visits=limit,
    )


def _input_node(pipeline: str, source: Input, limit: int | None) -> Node:
    return Node(
        name=pipeline,
        sink=Topic(pipeline, pipeline, "inputs"),
        sources=group([parse_external(with_external_default(each)) for each in source.external_inputs]),
        triggers=group([parse_external(with_external_default(each)) for each in source.external_triggers]),
        renames=_renames(source.tensor_map, None),
        join=source.join_type,
        triggers_join=source.triggers_join_type,
        window=source.join_window_ms or DEFAULT_WINDOW_MS,
        max_visits=limit,
    )


def _renames(tensor_map: Mapping[str, str], pipeline: str | None) -> Renames:
    """Parse a tensorMap. `pipeline` is None if its keys name other pipelines."""
    renames: dict[Topic, dict[str, str]] = {}
    for key, new in tensor_map.items():
        topic, tensor = parse_external(key) if pipeline is None else parse(key, pipeline)
        if tensor is not None:
            renames.setdefault(topic, {})[tensor] = new
    return renames


def _upstream_first(nodes: Sequence[Node]) -> list[Node]:
    """Sort steps behind the steps that they read. Within a cycle, the manifest's order counts."""
    positions = {node.name: position for position, node in enumerate(nodes)}
    lacking = {node.name: _reads(node) & positions.keys() for node in nodes}
    readers: dict[str, list[str]] = {}
    for name, reads in lacking.items():
        for read in reads:
            readers.setdefault(read, []).append(name)
    ordered: list[Node] = []
    ready = [name for name, reads in lacking.items() if not reads]
    while lacking:
        # In a cycle no step is ready, so the one that comes first in the manifest goes first.
        ready = ready or [next(iter(lacking))]
        ordered += [nodes[positions[name]] for name in ready]
        for name in ready:
            del lacking[name]
        freed: set[str] = set()
        for name in ready:
            for reader in readers.get(name, ()):
                if reader in lacking:
                    lacking[reader].discard(name)
                    freed |= set() if lacking[reader] else {reader}
        ready = sorted(freed, key=positions.__getitem__)
    return ordered


def _reads(node: Node) -> set[str]:
    return {source.topic.owner for source in (*node.sources, *node.triggers)} - {node.name}
