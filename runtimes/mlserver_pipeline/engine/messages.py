"""What flows through a pipeline: messages of tensors, as Core 2 keeps them between steps.

Between two steps a message is only an id, parameters and tensors; the model's name and version and the requested
outputs are dropped by the engine.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

Parameter = bool | int | str
"""The values that `parameters` can carry from step to step (V2's `bool_param`, `int64_param` and `string_param`)."""


class Tensor(NamedTuple):
    """A tensor on its way: `data` is flat, row-major, and `bytes` for datatype BYTES."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]
    parameters: Mapping[str, Parameter]


class StepMessage(NamedTuple):
    """A request or a response on its way; there is no difference between the two here."""

    id: str
    parameters: Mapping[str, Parameter]
    tensors: tuple[Tensor, ...]

    def select(self, wanted: Collection[str], renamed: Mapping[str, str]) -> "StepMessage | None":
        """The message with the `wanted` tensors only (empty: all), under their new names where `renamed` has one.

        None when no tensor is left: the engine drops such a message, so what reads it doesn't fire.
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
    """A message with its headers (`x-*` only) and the time at which it was produced, in milliseconds."""

    message: StepMessage
    headers: Mapping[str, str]
    time: int


def merge(left: StepMessage | None, right: StepMessage | None) -> StepMessage:
    """Two joined messages as one: id and parameters of the left, tensors of both. Equal names are kept, not merged."""
    if left is None or right is None:
        alone = left or right
        assert alone is not None, "a join emits at least one side"
        return alone
    return left._replace(tensors=left.tensors + right.tensors)
