"""The messages between the steps of a pipeline.

As in Core 2, a message has an id, parameters and tensors. The engine drops the model's name and version and the
requested outputs.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

Parameter = bool | int | str
"""A value that `parameters` can carry between steps: V2's `bool_param`, `int64_param` and `string_param`."""


class Tensor(NamedTuple):
    """A tensor of a message. `data` is flat in row-major order, with `bytes` for datatype BYTES."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]
    parameters: Mapping[str, Parameter]


class StepMessage(NamedTuple):
    """A request to a step, or its response."""

    id: str
    parameters: Mapping[str, Parameter]
    tensors: tuple[Tensor, ...]

    def select(self, wanted: Collection[str], renamed: Mapping[str, str]) -> "StepMessage | None":
        """Select and rename tensors.

        Args:
            wanted: names of the tensors to keep; empty keeps all.
            renamed: new names by old name.

        Returns:
            The message with these tensors, or None if none is left. Core 2's engine drops such a message.
        """
        if not wanted and not renamed:
            return self if self.tensors else None
        kept = tuple(
            tensor._replace(name=renamed[tensor.name]) if tensor.name in renamed else tensor
            for tensor in self.tensors
            if not wanted or tensor.name in wanted
        )
        return self._replace(tensors=kept) if kept else None


class Record(NamedTuple):
    """A message with its `x-*` headers and the time in milliseconds at which it was produced."""

    message: StepMessage
    headers: Mapping[str, str]
    time: int


def merge(left: StepMessage | None, right: StepMessage | None) -> StepMessage:
    """Merge two joined messages: id and parameters of the left one, tensors of both, also those of the same name."""
    if left is None or right is None:
        alone = left or right
        assert alone is not None, "a join emits at least one side"
        return alone
    return left._replace(tensors=left.tensors + right.tensors)
