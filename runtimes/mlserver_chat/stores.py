"""The seam under conversational memory: a `MemoryStore` keeps conversations, each an ordered list of messages."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from .messages.types import Message
from .requests.identity import AppendKey

SYSTEM_ROLES = ("system", "developer")
"""Roles of a system message; OpenAI's newer models call it `developer`."""

_ROLE_AT = len('{"role": "')


# A window is made of many: a tuple is made in half a frozen dataclass's time.
class StoredMessage(NamedTuple):
    """A message as a store keeps it."""

    sequence: int
    """Position in the conversation as the store assigned it, ascending from 1 without gaps; pruning leaves gaps."""
    record: str
    """The message exactly as `Message.to_history` writes it: one element of the `history` tensor."""
    created: float
    """When it was stored, seconds since the epoch. Never used for order."""
    provenance: Mapping[str, str] = MappingProxyType({})
    """What produced it: `prompt`, `prompt_version`, `prompt_hash`, `model`, where they arrived with the message; and
    `finish_reason` where it was not `stop`, e.g. `cut`."""

    @property
    def role(self) -> str:
        """The message's role, without parsing the rest."""
        role = self.record[_ROLE_AT : self.record.index('"', _ROLE_AT)]
        return self.message.role if "\\" in role else role

    @property
    def message(self) -> Message:
        """The message itself."""
        return Message.from_history(self.record, f"stored message {self.sequence}")


@dataclass(frozen=True)
class Window:
    """The newest messages of a conversation, as a store returns them; `mlserver_memory.window` trims them."""

    messages: Sequence[StoredMessage] = ()
    """Oldest first."""
    system: StoredMessage | None = None
    """The newest system message, if it is older than all of `messages`."""


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
    """What an operator should know: why it can't be reached, records found damaged."""


class MemoryStore(Protocol):
    """Keeps conversations. An `append` that returned is never lost, never doubled and never reordered.

    Every verb acts in one namespace, by default "". Raises only `NotReachable` (the store can't be reached; trying
    again is safe), `InvalidInput` (the store can't hold this text) and `InternalError`.
    """

    def scope(self, namespace: str) -> "MemoryStore":
        """The same store seen from another namespace; it shares connections and files, and is not closed."""
        ...

    def namespaces(self) -> AsyncIterator[str]:
        """All namespaces that hold a conversation, whichever this one is."""
        ...

    async def open(self) -> None:
        """Reach the store, create or upgrade its schema. Idempotent; the other verbs do it where it is still due."""
        ...

    async def append(
        self,
        key: AppendKey,
        messages: Sequence[Message],
        size: int,
        provenance: Mapping[str, str] | None = None,
        created: float | None = None,
    ) -> Window:
        """Append all `messages` (at least one) or none, and return the newest `size` (at least 1) up to and including
        them.

        `created` is when they were first stored, seconds since the epoch, where that is known from elsewhere (an
        import); not before the newest message. Default: now.

        The same key again appends nothing and returns the window that ends at the messages stored the first time:
        what is left of it after pruning, empty after `delete`.
        """
        ...

    async def window(self, memory_id: str, size: int) -> Window:
        """The newest `size` messages; empty for an unknown conversation. Where pruning has left a gap behind an old
        system message, a store may count the gap."""
        ...

    async def read(self, memory_id: str, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        """Up to `limit` messages whose sequence is over `after`, oldest first."""
        ...

    def conversations(self) -> AsyncIterator[ConversationInfo]:
        """All conversations that hold a message, in an order that the store chooses."""
        ...

    async def delete(self, memory_id: str) -> int:
        """Remove a conversation; returns how many messages it had."""
        ...

    async def prune(
        self,
        older_than: float | None = None,
        max_messages: int | None = None,
        memory_id: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Remove messages stored before `older_than` (seconds since the epoch); and of each conversation (of one, with
        `memory_id`) that holds more than `max_messages`, those whose sequence is not over the newest one's less
        `max_messages`. The newest system message stays while others do. Returns how many were removed, or would be in
        a `dry_run`."""
        ...

    async def stats(self) -> StoreStats:
        """What the store holds. Never raises for a store that is down: `reachable` is then false."""
        ...

    async def aclose(self) -> None:
        """Finish what was begun, give back connections and files. Called once."""
        ...
