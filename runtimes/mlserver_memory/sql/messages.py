"""Messages on their way into the tables and out of them."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mlserver_chat import Message, StoredMessage, Window
from mlserver_chat.requests.identity import hashed
from mlserver_chat.stores import SYSTEM_ROLES

_UNKNOWN: Mapping[str, str] = MappingProxyType({})


def stored_messages(rows: Iterable[Any]) -> list[StoredMessage]:
    """Return the messages of rows of `schema.message_columns`."""
    return [
        StoredMessage(
            int(sequence), record, created, MappingProxyType(json.loads(provenance)) if provenance else _UNKNOWN
        )
        for sequence, record, created, provenance in rows
    ]


@dataclass(frozen=True)
class NewMessages:
    """The messages of one append, and the rows that they become.

    Args:
        conversation: id of the conversation.
        records: the messages as JSON texts.
        system_offset: position of the newest system message among them, counted from 1; 0 for none.
        created: seconds since the epoch.
        size: messages of the window to return.
    """

    conversation: str
    namespace: str
    memory_id: str
    digest: str
    records: Sequence[str]
    system_offset: int
    provenance: Mapping[str, str]
    created: float
    size: int

    @classmethod
    def of(
        cls,
        conversation: str,
        namespace: str,
        memory_id: str,
        digest: str,
        messages: Sequence[Message],
        provenance: Mapping[str, str],
        created: float | None,
        size: int,
    ) -> "NewMessages":
        """Make the records of `messages`; `created` None is now."""
        records = [message.to_history() for message in messages]
        offset = max((n for n, message in enumerate(messages, 1) if message.role in SYSTEM_ROLES), default=0)
        created = time.time() if created is None else float(created)
        known = MappingProxyType(dict(provenance)) if provenance else _UNKNOWN
        return cls(conversation, namespace, memory_id, digest, records, offset, known, created, size)

    @property
    def count(self) -> int:
        """Number of messages."""
        return len(self.records)

    @property
    def provenance_text(self) -> str | None:
        """The column `provenance`."""
        return json.dumps(dict(self.provenance)) if self.provenance else None

    def counts(self) -> dict[str, Any]:
        """Return the values of `dialects.generic.sequences_taken`, and the conversation."""
        return {
            "p_conversation": self.conversation,
            "p_count": self.count,
            "p_offset": self.system_offset,
            "p_now": self.created,
        }

    def conversation_row(self) -> dict[str, Any]:
        """Return the row of a conversation that begins with these messages."""
        return {
            "id": self.conversation,
            "namespace_id": hashed(self.namespace),
            "namespace": self.namespace or None,
            "memory_id": self.memory_id,
            "last": self.count,
            "system": self.system_offset,
            "messages": self.count,
            "oldest": self.created,
            "updated": self.created,
        }

    def key_row(self, last: int, system: int) -> dict[str, Any]:
        """Return the row of `appends`, given the conversation's last sequence and that of its system message."""
        return {
            "conversation": self.conversation,
            "digest": self.digest,
            "last": last,
            "system": system,
            "created": self.created,
        }

    def message_rows(self, last: int) -> list[dict[str, Any]]:
        """Return the rows of `messages`; `last` is the sequence of the last one."""
        common = {
            "conversation": self.conversation,
            "created": self.created,
            "provenance": self.provenance_text,
        }
        first = last - self.count + 1
        return [
            common | {"sequence": sequence, "record": record} for sequence, record in enumerate(self.records, first)
        ]

    def window_after(self, before: Window, last: int) -> Window:
        """Return the window of the messages `before` and these; `last` is the sequence of the last one."""
        first = last - self.count + 1
        stored = [
            StoredMessage(sequence, record, self.created, self.provenance)
            for sequence, record in enumerate(self.records, first)
        ]
        older = [message for message in before.messages if message.sequence < first]
        return Window([*older, *stored][-self.size :], before.system)
