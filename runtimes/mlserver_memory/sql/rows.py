"""Reading windows, and appending: what happens inside one transaction."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from mlserver_chat import Message, StoredMessage, Window
from mlserver_chat.identity import hashed
from mlserver_chat.stores import SYSTEM_ROLES

from .statements import Statements


def stored_message(row: Any) -> StoredMessage:
    """The message of a row of `messages`."""
    sequence, record, created, provenance = row
    return StoredMessage(int(sequence), record, created, json.loads(provenance) if provenance else {})


def newest_window(connection: Connection, statements: Statements, identity: str, size: int) -> Window:
    """The newest `size` messages of conversation `identity`, and the system message if it is older."""
    rows = connection.execute(statements.window, {"p_id": identity, "p_size": size}).all()
    messages = _in_order(rows)
    return _with_system(messages, messages[-1].sequence - size if messages else 0)


def window_until(connection: Connection, statements: Statements, identity: str, ends: Any, size: int) -> Window:
    """The newest `size` messages of conversation `identity` up to `ends`: a `last` and a `system`."""
    return _range(connection, statements, identity, int(ends.last) - size, int(ends.last), int(ends.system))


def _range(
    connection: Connection, statements: Statements, identity: str, after: int, until: int, system: int
) -> Window:
    """The messages with `after` < sequence ≤ `until`, and the system message if it is older."""
    values = {"p_id": identity, "p_after": after, "p_until": until}
    if not 0 < system <= after:
        rows = connection.execute(statements.range, values).all()
        return Window([stored_message(row) for row in rows])
    rows = connection.execute(statements.range_and_system, values | {"p_system": system}).all()
    return _with_system(_in_order(rows), after)


def _in_order(rows: Iterable[Any]) -> list[StoredMessage]:
    return [stored_message(row) for row in sorted(rows, key=itemgetter(0))]


def _with_system(messages: list[StoredMessage], after: int) -> Window:
    """A first message that is not after `after` is the system message that came along."""
    if messages and messages[0].sequence <= after:
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
    created: float | None = None
    """Seconds since the epoch, None for now."""

    def run(self, connection: Connection) -> Window:
        """Append and return the window."""
        now = time.time() if self.created is None else self.created
        records = [message.to_history() for message in self.messages]
        provenance = json.dumps(dict(self.provenance)) if self.provenance else None
        insert = self._insert_at_once if connection.dialect.name == "postgresql" else self._insert
        last, system, rows = insert(connection, now, records, provenance)
        first, after = last - len(records) + 1, last - self.size
        stored = [StoredMessage(first + n, record, now, self.provenance) for n, record in enumerate(records)]
        if rows:
            older = _with_system(_in_order(rows), after)
        elif first - 1 > max(after, 0) or 0 < system <= after:
            older = _range(connection, self.statements, self.identity, after, first - 1, system)
        else:
            older = Window()
        return Window([*older.messages, *stored][-self.size :], older.system)

    def _insert(
        self, connection: Connection, now: float, records: Sequence[str], provenance: str | None
    ) -> tuple[int, int, Sequence[Any]]:
        """The last sequence, that of the newest system message, and the window before where it came along."""
        last, system = self._reserve(connection, now)
        append = {"conversation": self.identity, "digest": self.digest, "last": last, "system": system, "created": now}
        connection.execute(self.statements.add_append, append)
        rows = [
            {"conversation": self.identity, "sequence": sequence, "record": record, "created": now}
            for sequence, record in enumerate(records, last - len(records) + 1)
        ]
        connection.execute(self.statements.add_messages, [row | {"provenance": provenance} for row in rows])
        return last, system, ()

    def _insert_at_once(
        self, connection: Connection, now: float, records: Sequence[str], provenance: str | None
    ) -> tuple[int, int, Sequence[Any]]:
        is_single = len(records) == 1
        values = self._values(now) | {
            "p_digest": self.digest,
            "p_namespace_id": hashed(self.namespace),
            "p_namespace": self.namespace or None,
            "p_memory_id": self.memory_id,
            "p_records": records[0] if is_single else records,
            "p_provenance": provenance,
            "p_size": self.size,
        }
        statement = self.statements.append_one_at_once if is_single else self.statements.append_at_once
        rows: Sequence[Any] = connection.execute(statement, values).all()
        return rows[0].last, rows[0].system, [row[2:] for row in rows if row.sequence is not None]

    def _values(self, now: float) -> dict[str, Any]:
        """What every way to reserve binds; `p_offset` is the position of the newest system message, 0 for none."""
        offset = max((n for n, message in enumerate(self.messages, 1) if message.role in SYSTEM_ROLES), default=0)
        return {"p_id": self.identity, "p_count": len(self.messages), "p_offset": offset, "p_now": now}

    def replayed(self, connection: Connection) -> Window | None:
        """The window that ends at the messages of an earlier append with the same key; None without one."""
        ends = connection.execute(self.statements.replayed, {"p_id": self.identity, "p_digest": self.digest}).first()
        return None if ends is None else window_until(connection, self.statements, self.identity, ends, self.size)

    def _reserve(self, connection: Connection, now: float) -> tuple[int, int]:
        """Take the sequences of the new messages; the last of them, and that of the newest system message."""
        values, ends = self._values(now), None
        count, offset = values["p_count"], values["p_offset"]
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
