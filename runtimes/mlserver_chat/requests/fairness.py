"""The order in which waiting requests are served, so that no caller can starve the others."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from mlserver.types import InferenceRequest

from ..limits import server_limits
from ..tensors import optional_text, read_tensors
from .identity import request_headers, request_identity

_MEMORY = 64
"""Turns after which a served key counts like a new one."""

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
    """A queue that serves the least recently served key first and, within a key, the oldest item.

    A new key counts as served 64 turns before its first item arrived. So it goes ahead of callers that keep the queue
    busy, yet an endless supply of new keys starves no other: those that arrive more than 64 turns after a key was
    served can't overtake it. Not thread-safe.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._waiting: dict[Hashable, deque[T]] = {}
        self._ranks: dict[Hashable, int] = {}
        """The turn in which each waiting key was served last, or counts as served."""
        self._served: dict[Hashable, int] = {}
        """The keys of the last turns with their turn, oldest first."""

    def put(self, key: Hashable, item: T) -> None:
        """Add an item at the end of its key's items."""
        if key not in self._waiting:
            self._waiting[key] = deque()
            self._ranks[key] = self._served.get(key, self._turn - _MEMORY)
        self._waiting[key].append(item)

    def take(self) -> T:
        """Remove and return the next item. Equally ranked keys take turns in the order in which they arrived.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._waiting:
            raise IndexError("take from an empty queue")
        key = min(self._waiting, key=self._ranks.__getitem__)
        item = self._waiting[key].popleft()
        self._turn += 1
        self._served.pop(key, None)
        self._served[key] = self._ranks[key] = self._turn
        self._forget(key)
        oldest = next(iter(self._served))
        if self._served[oldest] <= self._turn - _MEMORY:
            del self._served[oldest]
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
        self._forget(key)
        return True

    def _forget(self, key: Hashable) -> None:
        """Drop a key that has no items left."""
        if not self._waiting[key]:
            del self._waiting[key], self._ranks[key]
