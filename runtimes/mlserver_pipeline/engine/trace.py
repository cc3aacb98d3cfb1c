"""Records the messages of a request at each node, and explains why a step didn't fire."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..manifests.graph import Graph, Node
from ..manifests.manifest import JoinType
from ..manifests.references import Source
from .messages import StepMessage, Tensor

MAX_TEXT = 200
"""Characters of a text that a trace shows."""
MAX_ELEMENTS = 10
"""Elements of a tensor that a trace shows."""


@dataclass
class _Arrivals:
    """The messages that arrived from one source."""

    selected: list[StepMessage] = field(default_factory=list[StepMessage])
    without: bool = False
    """Whether a message arrived that had none of the wanted tensors."""


class NodeTrace:
    """The messages, times and errors of one node."""

    def __init__(self, node: Node):
        self.node = node
        self.firings = 0
        self.answers = 0
        self.seconds = 0.0
        self.waited = 0.0
        self.error: str | None = None
        self._arrivals: dict[Source, _Arrivals] = {}
        self._left: list[StepMessage] = []
        self._first_arrival: float | None = None

    def arrived(self, source: Source, selected: StepMessage | None) -> None:
        """Note a message from a source. `selected` is the message with the wanted tensors, None without any."""
        arrivals = self._arrivals.setdefault(source, _Arrivals())
        if selected is None:
            arrivals.without = True
        else:
            arrivals.selected.append(selected)
            self._first_arrival = self._first_arrival or time.perf_counter()

    def fired(self, message: StepMessage) -> None:
        """Note that the node fired."""
        if not self.firings:
            self.waited = time.perf_counter() - (self._first_arrival or 0.0)
        self.firings += 1
        if not self.node.calls_model:
            self._left.append(message)

    def answered(self, message: StepMessage, seconds: float) -> None:
        """Note the model's answer."""
        self.answers += 1
        self.seconds += seconds
        self._left.append(message)

    def failed(self, text: str, seconds: float) -> None:
        """Note the model's error."""
        self.seconds += seconds
        self.error = text

    @property
    def waits_for(self) -> str:
        """The sources that arrived at a node that didn't fire, and those that it waits for."""
        data = self._lacks(self.node.sources, self.node.join)
        trigger = self._lacks(self.node.triggers, self.node.triggers_join)
        if data or trigger:
            got = f"got {self._came}" if self._came else ""
            parts = (got, f"waits for {data}" if data else "", f"waits for its trigger {trigger}" if trigger else "")
            return " and ".join(part for part in parts if part)
        if self.node.batch:
            return f"waits for other requests to fill its batch of {self.node.batch}"
        return f"got its sources more than joinWindowMs ({self.node.window}) apart"

    def _lacks(self, sources: Sequence[Source], join: JoinType) -> str:
        missing = [self._missing(source) for source in sources if not self._has(source)]
        if join == "inner":
            return " and ".join(missing)
        return " or ".join(missing) if len(missing) == len(sources) else ""

    def _has(self, source: Source) -> bool:
        return source in self._arrivals and bool(self._arrivals[source].selected)

    def _missing(self, source: Source) -> str:
        came_without = source in self._arrivals and self._arrivals[source].without
        return f"{source} ({source.topic} came without it)" if came_without else str(source)

    def row(self, values: bool) -> dict[str, Any]:
        """Return the trace of the step as JSON. Without `values`, tensors have names only."""
        arrived = {
            str(source): [_tensors(message, values) for message in arrivals.selected]
            for source, arrivals in self._arrivals.items()
        }
        row: dict[str, Any] = {
            "step": self.node.name,
            "fired": self.firings,
            "arrived": arrived,
            "left": [_tensors(message, values) for message in self._left],
            "parameters": {key: value for message in self._left for key, value in message.parameters.items()},
            "ms": round(self.seconds * 1000, 3),
            "waited_ms": round(self.waited * 1000, 3),
            "why": self.why,
        }
        return row | ({"error": self.error} if self.error else {})

    @property
    def why(self) -> str:
        """Why the node fired or didn't."""
        if not self.firings:
            return self.waits_for
        if self.answers + bool(self.error) < self.firings:
            return "is still running"
        times = "" if self.firings == 1 else f" {self.firings} times"
        return f"fired{times}: {self._came} came"

    @property
    def _came(self) -> str:
        # In the manifest's order instead of arrival, so that the same request gets the same text.
        return " and ".join(str(source) for source in (*self.node.sources, *self.node.triggers) if self._has(source))


def trace_rows(traces: Iterable[NodeTrace], values: bool) -> list[str]:
    """Return one JSON object for each step, upstream steps first."""
    return [json.dumps(trace.row(values), ensure_ascii=False) for trace in traces if trace.node.calls_model]


def describe_stall(graph: Graph, traces: Sequence[NodeTrace]) -> str:
    """Explain why no answer can come: list the steps that didn't fire, and the sources that each waits for."""
    if not graph.answers:
        return f"pipeline '{graph.name}' has no output section, so no caller gets an answer"
    idle = [trace for trace in traces if not trace.firings]
    waiting = "; ".join(f"{_label(trace.node)} {trace.waits_for}" for trace in idle)
    return f"pipeline '{graph.name}' has nothing in flight and no answer: {waiting}"


def _label(node: Node) -> str:
    return f"step '{node.name}'" if node.calls_model else f"the {node.sink.side.removesuffix('s')}"


def _tensors(message: StepMessage, values: bool) -> Mapping[str, Any] | list[str]:
    if not values:
        return [tensor.name for tensor in message.tensors]
    return {tensor.name: _shown(tensor) for tensor in message.tensors}


def _shown(tensor: Tensor) -> list[Any]:
    shown = [_element(element) for element in tensor.data[:MAX_ELEMENTS]]
    hidden = len(tensor.data) - MAX_ELEMENTS
    return shown + ([f"… {hidden} more"] if hidden > 0 else [])


def _element(element: Any) -> Any:
    if isinstance(element, float) and not math.isfinite(element):
        return str(element)
    if not isinstance(element, bytes):
        return element
    text = element.decode("utf-8", errors="replace")
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
