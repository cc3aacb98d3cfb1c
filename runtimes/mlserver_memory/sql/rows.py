"""Reading windows, and appending: what happens inside one transaction."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from mlserver_chat import Message, StoredMessage, Window
from mlserver_chat.identity import hashed
from mlserver_chat.stores import SYSTEM_ROLES

from .statements import Statements


def stored_message(row: Any) -> StoredMessage:
    """The message of a row of `messages`."""
    provenance: dict[str, str] = json.loads(row.provenance) if row.provenance else {}
    return StoredMessage(int(row.sequence), row.record, row.created, provenance)


def read_window(connection: Connection, statements: Statements, identity: str, ends: Any, size: int) -> Window:
    """The newest `size` messages of conversation `identity` up to `ends`: its `last` and its `system`."""
    return _read(connection, statements, identity, int(ends.last) - size, int(ends.last), int(ends.system))


def _read(connection: Connection, statements: Statements, identity: str, after: int, until: int, system: int) -> Window:
    """The messages with `after` < sequence ≤ `until`, and the system message if it is older."""
    values = {"p_id": identity, "p_after": after, "p_until": until}
    if not 0 < system <= after:
        rows = connection.execute(statements.range, values).all()
        return Window([stored_message(row) for row in rows])
    rows = connection.execute(statements.range_and_system, values | {"p_system": system}).all()
    messages = sorted((stored_message(row) for row in rows), key=lambda message: message.sequence)
    if messages and messages[0].sequence == system:
        return Window(messages[1:], messages[0])
    return Window(messages)


@dataclass(frozen=True)
class Append:
    """One append: `run` it in a writing transaction, and when that violates a constraint, ask `replayed`."""

    statements: Statements
    identity: str
    namespace: str
    memory_id: str
    digest: str
    messages: Sequence[Message]
    provenance: Mapping[str, str]
    size: int

    def run(self, connection: Connection) -> Window:
        """Append and return the window."""
        statements, count, now = self.statements, len(self.messages), time.time()
        last, system = self._reserve(connection, now)
        first = last - count + 1
        append = {"conversation": self.identity, "digest": self.digest, "last": last, "system": system, "created": now}
        connection.execute(statements.add_append, append)
        stored = [
            StoredMessage(first + index, message.to_history(), now, self.provenance)
            for index, message in enumerate(self.messages)
        ]
        provenance = json.dumps(dict(self.provenance)) if self.provenance else None
        connection.execute(
            statements.add_messages,
            [
                {
                    "conversation": self.identity,
                    "sequence": each.sequence,
                    "record": each.record,
                    "created": now,
                    "provenance": provenance,
                }
                for each in stored
            ],
        )
        after = last - self.size
        if first - 1 <= after and not 0 < system <= after:
            return Window(stored[-self.size :])
        older = _read(connection, statements, self.identity, after, first - 1, system)
        return Window([*older.messages, *stored][-self.size :], older.system)

    def replayed(self, connection: Connection) -> Window | None:
        """The window that ends at the messages of an earlier append with the same key; None without one."""
        ends = connection.execute(self.statements.replayed, {"p_id": self.identity, "p_digest": self.digest}).first()
        return None if ends is None else read_window(connection, self.statements, self.identity, ends, self.size)

    def _reserve(self, connection: Connection, now: float) -> tuple[int, int]:
        """Take the sequences of the new messages; the last of them, and that of the newest system message."""
        count = len(self.messages)
        offset = max((n for n, message in enumerate(self.messages, 1) if message.role in SYSTEM_ROLES), default=0)
        values = {"p_id": self.identity, "p_count": count, "p_offset": offset, "p_now": now}
        ends = None
        if connection.dialect.update_returning:
            ends = connection.execute(self.statements.reserve_returning, values).first()
        elif connection.execute(self.statements.reserve, values).rowcount:
            ends = connection.execute(self.statements.ends, {"p_id": self.identity}).one()
        if ends is not None:
            return int(ends.last), int(ends.system)
        connection.execute(
            self.statements.add_conversation,
            {
                "id": self.identity,
                "namespace_id": hashed(self.namespace),
                "namespace": self.namespace or None,
                "memory_id": self.memory_id,
                "last": count,
                "system": offset,
                "messages": count,
                "oldest": now,
                "updated": now,
            },
        )
        return count, offset
