"""Batches requests as Core 2's dataflow engine does: across callers, of whom only the last gets an answer."""

from .messages import StepMessage, Tensor


class BatchBuffer:
    """Collects the messages of several requests until their first tensor has `size` rows."""

    def __init__(self, size: int):
        self._size = size
        self._gathered: tuple[Tensor, ...] = ()

    def add(self, message: StepMessage) -> StepMessage | None:
        """Add a message. Returns the full batch with this message's id and parameters, or None if there is room."""
        self._gathered = _stacked((*self._gathered, *message.tensors))
        if _rows(self._gathered[0]) < self._size:
            return None
        full, self._gathered = self._gathered, ()
        return message._replace(tensors=full)


def _stacked(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Concatenate tensors of the same name. Datatype and all dimensions but the first come from the first tensor."""
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
