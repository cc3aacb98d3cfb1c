"""References of a manifest, `<step or pipeline>.<inputs|outputs>[.<tensor>]`, and the topics they stand for."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SIDES = ("inputs", "outputs")


class Topic(NamedTuple):
    """What was sent to, or came out of, a step of a pipeline or the pipeline itself."""

    pipeline: str
    owner: str
    side: str

    def __str__(self) -> str:
        return f"{self.owner}.{self.side}"


class Source(NamedTuple):
    """What a step reads from one topic: the named tensors, or all when none is named."""

    topic: Topic
    tensors: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.topic}.{{{','.join(self.tensors)}}}"
            if len(self.tensors) > 1
            else ".".join((str(self.topic), *self.tensors))
        )


Renames = Mapping[Topic, Mapping[str, str]]
"""A tensorMap: for each topic, the new names of its tensors."""


def with_default(reference: str, pipeline: str) -> str:
    """A bare name in full: the pipeline's own name means its inputs, a step's name its outputs."""
    if "." in reference or not reference:
        return reference
    return f"{reference}.{'inputs' if reference == pipeline else 'outputs'}"


def with_external_default(reference: str) -> str:
    """A bare pipeline, or step of a pipeline, in full: its outputs."""
    parts = reference.split(".")
    bare = len(parts) == 1 or (len(parts) == 3 and parts[1] == "step")
    return f"{reference}.outputs" if bare and reference else reference


def parse(reference: str, pipeline: str) -> tuple[Topic, str | None]:
    """Topic and tensor of a valid reference within `pipeline`, in full."""
    owner, side, *tensor = reference.split(".")
    return Topic(pipeline, owner, side), tensor[0] if tensor else None


def parse_external(reference: str) -> tuple[Topic, str | None]:
    """Topic and tensor of a valid reference to another pipeline or one of its steps, in full."""
    pipeline, *rest = reference.split(".")
    if rest[0] == "step":
        return parse(".".join(rest[1:]), pipeline)
    return parse(reference, pipeline)


def group(references: Sequence[tuple[Topic, str | None]]) -> tuple[Source, ...]:
    """One source a topic, in the order of first appearance.

    Two tensors of one topic are one source, which fires when either is there; a named tensor beside the bare topic
    leaves only the named one.
    """
    grouped: dict[Topic, dict[str, None]] = {}
    for topic, tensor in references:
        tensors = grouped.setdefault(topic, {})
        if tensor is not None:
            tensors[tensor] = None
    return tuple(Source(topic, tuple(tensors)) for topic, tensors in grouped.items())
