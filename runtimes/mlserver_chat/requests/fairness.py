"""The order in which waiting requests are served, so that no caller can starve the others."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from mlserver.types import InferenceRequest

from ..limits import server_limits
from ..tensors import optional_text, read_tensors
from .identity import request_headers, request_identity

_WINDOW = 64
"""Turns that are remembered. A key without any of them counts as new."""
_FEW = 3
"""Keys with fewer of the remembered turns go ahead. A pipeline may ask the same LLM in this many steps."""

T = TypeVar("T")


def fair_key(request: InferenceRequest) -> Hashable:
    """The key under which `request` takes turns with others.

    Returns:
        The tenant header and the `memory_id`, if the request has one of them; otherwise the request's identity.

    Raises:
        InvalidInput: the tensor `memory_id` isn't text.
    """
    tenant = request_headers(request).get(server_limits().tenant_header, "")
    tensors = read_tensors(tensor for tensor in request.inputs if tensor.name == "memory_id")
    memory_id = (optional_text(tensors, "memory_id") or [""])[0]
    return (tenant, memory_id) if tenant or memory_id else request_identity(request)


class FairQueue(Generic[T]):
    """A queue in which keys take turns. Within a key, the oldest item goes first.

    The least recently served key goes first, so busy keys get equal shares. Keys with fewer than three of the last 64
    turns go ahead of the others: a pipeline that asks an LLM in several steps doesn't wait for all busy keys at each
    step. An endless supply of new keys can't starve a key, which counts as new after 64 turns. Not thread-safe.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[T]] = {}
        self._turns: deque[Hashable] = deque()
        """The keys of the last turns, oldest first."""
        self._counts: dict[Hashable, int] = {}
        """The turns of each key among them. The least recently served key stands first."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, key: Hashable, item: T) -> None:
        """Add an item after the other items of its key."""
        self._waiting.setdefault(key, deque()).append(item)

    def take(self) -> T:
        """Remove and return the next item. New keys are served in the order in which they arrived.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._waiting:
            raise IndexError("take from an empty queue")
        key = self._next_key()
        item = self._waiting[key].popleft()
        self._count_turn(key)
        self._forget_if_empty(key)
        return item

    def remove(self, key: Hashable, item: T) -> bool:
        """Remove an item that no longer needs to be served.

        Returns:
            Whether the item was still waiting.
        """
        try:
            self._waiting[key].remove(item)
        except (KeyError, ValueError):
            return False
        self._forget_if_empty(key)
        return True

    def _next_key(self) -> Hashable:
        order = {key: place for place, key in enumerate(self._counts, start=1)}

        def rank(key: Hashable) -> tuple[int, int]:
            return min(self._counts.get(key, 0), _FEW), order.get(key, 0)

        return min(self._waiting, key=rank)

    def _count_turn(self, key: Hashable) -> None:
        self._turns.append(key)
        self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._turns) > _WINDOW:
            oldest = self._turns.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    def _forget_if_empty(self, key: Hashable) -> None:
        if not self._waiting[key]:
            del self._waiting[key]
