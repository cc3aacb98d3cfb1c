"""A store in memory: the test double of the `MemoryStore` seam, gone with the process."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from mlserver_chat import AppendKey, ConversationInfo, Message, StoredMessage, StoreStats, Window
from mlserver_chat.stores import SYSTEM_ROLES


@dataclass
class _Conversation:
    messages: list[StoredMessage] = field(default_factory=list[StoredMessage])
    last: int = 0
    """Sequence of the newest message ever stored."""
    appends: dict[str, int] = field(default_factory=dict[str, int])
    """Digest of an append's key to the sequence of its last message."""


class InMemoryStore:
    """A `MemoryStore` in a dictionary."""

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[str, _Conversation]] = {}
        self._conversations = self._namespaces.setdefault("", {})

    def scope(self, namespace: str) -> "InMemoryStore":
        """The same store seen from another namespace."""
        scoped = type(self)()
        scoped._namespaces = self._namespaces
        scoped._conversations = self._namespaces.setdefault(namespace, {})
        return scoped

    async def namespaces(self) -> AsyncIterator[str]:
        """All namespaces."""
        for name, conversations in list(self._namespaces.items()):
            if any(conversation.messages for conversation in conversations.values()):
                yield name

    async def open(self) -> None:
        """Nothing to open."""

    async def append(
        self,
        key: AppendKey,
        messages: Sequence[Message],
        size: int,
        provenance: Mapping[str, str] | None = None,
        created: float | None = None,
    ) -> Window:
        """Append once a key."""
        conversation = self._conversations.setdefault(key.memory_id, _Conversation())
        end = conversation.appends.get(key.digest)
        if end is None:
            now = time.time() if created is None else created
            for message in messages:
                conversation.last += 1
                stored = StoredMessage(conversation.last, message.to_history(), now, dict(provenance or {}))
                conversation.messages.append(stored)
            end = conversation.appends[key.digest] = conversation.last
        return _window(conversation, end, size)

    async def window(self, memory_id: str, size: int) -> Window:
        """The newest `size` messages."""
        conversation = self._conversations.get(memory_id, _Conversation())
        return _window(conversation, conversation.last, size)

    async def read(self, memory_id: str, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        """A page of messages."""
        conversation = self._conversations.get(memory_id, _Conversation())
        return [message for message in conversation.messages if message.sequence > after][:limit]

    async def conversations(self) -> AsyncIterator[ConversationInfo]:
        """All conversations, oldest first."""
        for memory_id, conversation in list(self._conversations.items()):
            if conversation.messages:
                yield ConversationInfo(memory_id, len(conversation.messages), conversation.messages[-1].created)

    async def delete(self, memory_id: str) -> int:
        """Remove a conversation; its append keys stay known, so that a replay doesn't bring it back."""
        conversation = self._conversations.get(memory_id, _Conversation())
        count = len(conversation.messages)
        conversation.messages, conversation.last = [], 0
        conversation.appends = dict.fromkeys(conversation.appends, 0)
        return count

    async def prune(
        self,
        older_than: float | None = None,
        max_messages: int | None = None,
        memory_id: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Remove what is too old or too much."""
        removed = 0
        for name, conversation in list(self._conversations.items()):
            if memory_id not in (None, name):
                continue
            kept = _kept(conversation, older_than, max_messages)
            removed += len(conversation.messages) - len(kept)
            if dry_run:
                continue
            if conversation.messages and not kept:
                await self.delete(name)
            conversation.messages = kept
        return removed

    async def stats(self) -> StoreStats:
        """What the store holds."""
        counts = [len(each.messages) for each in self._conversations.values() if each.messages]
        return StoreStats(len(counts), sum(counts))

    async def aclose(self) -> None:
        """Nothing to give back."""


def _kept(conversation: _Conversation, older_than: float | None, max_messages: int | None) -> list[StoredMessage]:
    messages = conversation.messages
    cut = 0 if max_messages is None or len(messages) <= max_messages else conversation.last - max_messages
    kept = [m for m in messages if m.sequence > cut and (older_than is None or m.created >= older_than)]
    system = next((m for m in reversed(messages) if m.role in SYSTEM_ROLES), None)
    return [system, *kept] if kept and system is not None and system.sequence < kept[0].sequence else kept


def _window(conversation: _Conversation, end: int, size: int) -> Window:
    upto = [message for message in conversation.messages if message.sequence <= end]
    newest, older = upto[-size:], upto[:-size]
    inside = any(message.role in SYSTEM_ROLES for message in newest)
    system = None if inside else next((m for m in reversed(older) if m.role in SYSTEM_ROLES), None)
    return Window(newest, system)
