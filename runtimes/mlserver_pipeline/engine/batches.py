"""Batching as Core 2's dataflow engine does it: across requests, answering only the last of them."""

from .messages import StepMessage, Tensor


class BatchBuffer:
    """Gathers the messages of different requests until their first tensor has `size` rows."""

    def __init__(self, size: int):
        self._size = size
        self._gathered: tuple[Tensor, ...] = ()

    def add(self, message: StepMessage) -> StepMessage | None:
        """The full batch, with id and parameters of this last message; None while there is room."""
        self._gathered = _stacked((*self._gathered, *message.tensors))
        if _rows(self._gathered[0]) < self._size:
            return None
        full, self._gathered = self._gathered, ()
        return message._replace(tensors=full)


def _stacked(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Tensors of one name as one: rows added up, data one after the other, everything else of the first."""
    by_name: dict[str, Tensor] = {}
    for tensor in tensors:
        first = by_name.get(tensor.name)
        by_name[tensor.name] = (
            tensor
            if first is None
            else first._replace(
                shape=(_rows(first) + _rows(tensor), *first.shape[1:]),
                data=first.data + tensor.data,
                parameters={**first.parameters, **tensor.parameters},
            )
        )
    return tuple(by_name.values())


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.shape else 1
