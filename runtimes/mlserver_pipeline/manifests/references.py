"""Parses references of a manifest, `<step or pipeline>.<inputs|outputs>[.<tensor>]`, to the topics that they name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SIDES = ("inputs", "outputs")


class Topic(NamedTuple):
    """The inputs or outputs of a step, or of a pipeline. `owner` is the step's or the pipeline's name."""

    pipeline: str
    owner: str
    side: str

    def __str__(self) -> str:
        return f"{self.owner}.{self.side}"


class Source(NamedTuple):
    """The tensors that a step reads from one topic; without names, all of them."""

    topic: Topic
    tensors: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.topic}.{{{','.join(self.tensors)}}}"
            if len(self.tensors) > 1
            else ".".join((str(self.topic), *self.tensors))
        )


Renames = Mapping[Topic, Mapping[str, str]]
"""A parsed tensorMap: by topic, the new names of tensors by their old names."""


def with_default(reference: str, pipeline: str) -> str:
    """Complete a bare name: the pipeline's own name means its inputs, a step's name the step's outputs."""
    if "." in reference or not reference:
        return reference
    return f"{reference}.{'inputs' if reference == pipeline else 'outputs'}"


def with_external_default(reference: str) -> str:
    """Complete a bare pipeline or step of another pipeline: it means its outputs."""
    parts = reference.split(".")
    bare = len(parts) == 1 or (len(parts) == 3 and parts[1] == "step")
    return f"{reference}.outputs" if bare and reference else reference


def parse(reference: str, pipeline: str) -> tuple[Topic, str | None]:
    """Split a complete, valid reference within `pipeline` into topic and tensor."""
    owner, side, *tensor = reference.split(".")
    return Topic(pipeline, owner, side), tensor[0] if tensor else None


def parse_external(reference: str) -> tuple[Topic, str | None]:
    """Split a complete, valid reference to another pipeline or one of its steps into topic and tensor."""
    pipeline, *rest = reference.split(".")
    if rest[0] == "step":
        return parse(".".join(rest[1:]), pipeline)
    return parse(reference, pipeline)


def group(references: Sequence[tuple[Topic, str | None]]) -> tuple[Source, ...]:
    """Group references to sources, one for each topic, in the order of first appearance.

    Two tensors of one topic form one source, which fires when any one arrives. A named tensor beside the bare topic
    leaves only the named one.
    """
    grouped: dict[Topic, dict[str, None]] = {}
    for topic, tensor in references:
        tensors = grouped.setdefault(topic, {})
        if tensor is not None:
            tensors[tensor] = None
    return tuple(Source(topic, tuple(tensors)) for topic, tensors in grouped.items())
