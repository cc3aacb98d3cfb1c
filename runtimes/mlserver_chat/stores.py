"""The protocol of stores for conversations, and its types."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from .messages.types import Message
from .requests.identity import AppendKey

SYSTEM_ROLES = ("system", "developer")
"""Roles of system messages. Newer models of OpenAI use `developer`."""

_ROLE_AT = len('{"role": "')


# A window holds many messages, and a tuple takes half the time of a frozen dataclass to create.
class StoredMessage(NamedTuple):
    """A stored message."""

    sequence: int
    """Position in the conversation, assigned by the store: 1, 2, 3, and so on. Pruning leaves gaps."""
    record: str
    """The message as `Message.to_history` writes it, which is one element of the `history` tensor."""
    created: float
    """Time of storage, in seconds since the epoch. It never decides the order."""
    provenance: Mapping[str, str] = MappingProxyType({})
    """Origin of the message: `prompt`, `prompt_version`, `prompt_hash` and `model`, if they arrived with it, and
    `finish_reason` unless it was `stop`."""

    @property
    def role(self) -> str:
        """The message's role, read without parsing the rest of the record."""
        role = self.record[_ROLE_AT : self.record.index('"', _ROLE_AT)]
        return self.message.role if "\\" in role else role

    @property
    def message(self) -> Message:
        """The parsed message."""
        return Message.from_history(self.record, f"stored message {self.sequence}")


@dataclass(frozen=True)
class Window:
    """The newest messages of a conversation as a store returns them. `mlserver_memory.window` trims them."""

    messages: Sequence[StoredMessage] = ()
    """Oldest first."""
    system: StoredMessage | None = None
    """The newest system message, if it is older than all of `messages`."""


@dataclass(frozen=True)
class ConversationInfo:
    """Summary of one conversation."""

    memory_id: str
    messages: int
    updated: float
    """Time at which the newest message was stored, in seconds since the epoch."""


@dataclass(frozen=True)
class StoreStats:
    """Size and state of a store."""

    conversations: int
    messages: int
    reachable: bool = True
    detail: str = ""
    """Note for the operator, such as why the store can't be reached or how many records are damaged."""


class MemoryStore(Protocol):
    """Stores conversations, each an ordered list of messages.

    Once `append` has returned, its messages are never lost, doubled or reordered. All methods act in one namespace,
    "" by default.

    Raises:
        NotReachable: the store can't be reached; a retry is safe.
        InvalidInput: the store can't hold this text.
        InternalError: a bug.
    """

    def scope(self, namespace: str) -> "MemoryStore":
        """Return this store for another namespace. It shares connections and files, and must not be closed."""
        ...

    def namespaces(self) -> AsyncIterator[str]:
        """Yield all namespaces that hold a conversation."""
        ...

    async def open(self) -> None:
        """Connect, and create or upgrade the schema. Idempotent. The other methods do it on their first use."""
        ...

    async def append(
        self,
        key: AppendKey,
        messages: Sequence[Message],
        size: int,
        provenance: Mapping[str, str] | None = None,
        created: float | None = None,
    ) -> Window:
        """Append all messages or none, and return the window that ends with them.

        A second call with the same key appends nothing. It returns the window that ends with the messages stored by the
        first call, without those that were pruned since. After `delete` that window is empty.

        Args:
            key: identifies this append.
            messages: at least one.
            size: number of messages in the window, at least 1.
            provenance: origin of the messages; see `StoredMessage.provenance`.
            created: time of storage in seconds since the epoch, for imported messages. It must not lie before the
                newest message. Default: now.
        """
        ...

    async def window(self, memory_id: str, size: int) -> Window:
        """Return the newest `size` messages, none for an unknown conversation.

        A store may count the messages that pruning removed between an old system message and the next one.
        """
        ...

    async def read(self, memory_id: str, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        """Return up to `limit` messages with a sequence greater than `after`, oldest first."""
        ...

    def conversations(self) -> AsyncIterator[ConversationInfo]:
        """Yield all conversations that hold a message, in any order."""
        ...

    async def delete(self, memory_id: str) -> int:
        """Remove a conversation, and return the number of its messages."""
        ...

    async def prune(
        self,
        older_than: float | None = None,
        max_messages: int | None = None,
        memory_id: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Remove old messages. The newest system message of a conversation stays while other messages do.

        Args:
            older_than: remove messages stored before this time, in seconds since the epoch.
            max_messages: remove messages whose sequence is at least this much smaller than the newest one's, in
                conversations with more than this many messages.
            memory_id: prune only this conversation.
            dry_run: count, but remove nothing.

        Returns:
            The number of removed messages, or the number that a call without `dry_run` would remove.
        """
        ...

    async def stats(self) -> StoreStats:
        """Return the size and state of the store. If the store is down, `reachable` is False and nothing is raised."""
        ...

    async def aclose(self) -> None:
        """Finish running work, and close connections and files. Called once."""
        ...
