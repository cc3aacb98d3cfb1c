"""The seam under conversational memory: a `MemoryStore` keeps conversations, each an ordered list of messages."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .identity import AppendKey
from .messages import Message


@dataclass(frozen=True)
class StoredMessage:
    """A message as a store keeps it."""

    sequence: int
    """Position in the conversation as the store assigned it, ascending from 1; gaps are allowed."""
    message: Message
    created: float
    """When it was stored, seconds since the epoch. Never used for order."""
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])
    """What produced it: `prompt`, `prompt_version`, `prompt_hash`, `model`, where they arrived with the message."""


@dataclass(frozen=True)
class ConversationInfo:
    """One row of a store's list."""

    memory_id: str
    messages: int
    updated: float
    """When the newest message was stored, seconds since the epoch."""


@dataclass(frozen=True)
class StoreStats:
    """What a store holds, and whether it can be reached."""

    conversations: int
    messages: int
    reachable: bool = True
    detail: str = ""


class MemoryStore(Protocol):
    """Keeps conversations. An `append` that returned is never lost, never doubled and never reordered.

    Raises only `NotReachable` (the store can't be reached; nothing was written), `InvalidInput` (the store can't hold
    this text) and `InternalError`.
    """

    async def append(
        self, key: AppendKey, messages: Sequence[Message], window: int, provenance: Mapping[str, str] | None = None
    ) -> list[StoredMessage]:
        """Append all `messages` or none, and return the newest `window` messages up to and including them.

        The same key again appends nothing and returns the window that ends at the messages stored the first time.
        """
        ...

    async def window(self, memory_id: str, size: int) -> list[StoredMessage]:
        """The newest `size` messages, oldest first; empty for an unknown conversation."""
        ...

    async def read(self, memory_id: str, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        """Up to `limit` messages whose sequence is over `after`, oldest first."""
        ...

    def list(self) -> AsyncIterator[ConversationInfo]:
        """All conversations, in an order that the store chooses."""
        ...

    async def delete(self, memory_id: str) -> int:
        """Remove a conversation; returns how many messages it had."""
        ...

    async def prune(
        self, older_than: float | None = None, max_messages: int | None = None, memory_id: str | None = None
    ) -> int:
        """Remove messages stored before `older_than` (seconds since the epoch), and all but the newest `max_messages`
        of each conversation (of one, with `memory_id`). Returns how many were removed."""
        ...

    async def stats(self) -> StoreStats:
        """What the store holds. Never raises for a store that is down: `reachable` is then false."""
        ...

    async def aclose(self) -> None:
        """Give back connections and files. Called once."""
        ...
