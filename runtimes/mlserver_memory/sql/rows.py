"""Reading windows, and appending: what happens inside one transaction."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from mlserver_chat import Message, StoredMessage, Window
from mlserver_chat.requests.identity import hashed
from mlserver_chat.stores import SYSTEM_ROLES

from .batches import KnownAppend, OnWriter
from .direct import Execute
from .postgres import appended
from .statements import Statements
from .tails import Tail

_UNKNOWN: Mapping[str, str] = MappingProxyType({})


def stored_messages(rows: Iterable[Any]) -> list[StoredMessage]:
    """The messages of rows of `messages`."""
    return [
        StoredMessage(
            int(sequence), record, created, MappingProxyType(json.loads(provenance)) if provenance else _UNKNOWN
        )
        for sequence, record, created, provenance in rows
    ]


def newest_window(execute: Execute, statements: Statements, identity: str, size: int) -> Window:
    """The newest `size` messages of conversation `identity`, and the system message if it is older."""
    rows = sorted(execute(statements.window, {"p_id": identity, "p_size": size}), key=itemgetter(0))
    return _window(rows, int(rows[-1][0]) - size if rows else 0)


def window_until(execute: Execute, statements: Statements, identity: str, ends: tuple[int, int], after: int) -> Window:
    """The messages of conversation `identity` over `after` and up to the first of `ends`, and the system message, which
    is the second, if it is older."""
    until, system = ends
    values = {"p_id": identity, "p_after": after, "p_until": until}
    if not 0 < system <= after:
        return _window(execute(statements.range, values), after)
    rows = execute(statements.range_and_system, values | {"p_system": system})
    return _window(sorted(rows, key=itemgetter(0)), after)


def _window(rows: Sequence[Any], after: int) -> Window:
    """Of rows in their order; a first message that is not over `after` is the system message that came along."""
    messages = stored_messages(rows)
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

    def run(self, execute: Execute) -> Window:
        """Append and return the window."""
        now = time.time() if self.created is None else float(self.created)
        records = [message.to_history() for message in self.messages]
        provenance = json.dumps(dict(self.provenance)) if self.provenance else None
        if execute.dialect.name == "postgresql":
            return self._at_once(execute, now, records, provenance)
        tails = execute.tails
        tail = tails.take(self._tail) if tails is not None else None
        if isinstance(execute, OnWriter) and execute.batches and tail is not None and len(records) == 1:
            last, system, rows = *self._add_later(execute, tail, now, records[0], provenance), ()
        else:
            last, system, rows = self._add(execute, now, records, provenance)
        first, after = last - len(records) + 1, last - self.size
        stored = self._stored(records, first, now)
        known = tail.append(stored, system, self.size) if tail is not None else None
        if tails is not None and tail is not None and known is not None:
            tails.put(self._tail, tail)
            return known
        older = Window()
        if rows:
            older = _window(sorted(rows, key=itemgetter(0)), after)
        elif first - 1 > max(after, 0) or 0 < system <= after:
            older = window_until(execute, self.statements, self.identity, (first - 1, system), after)
        window = Window([*older.messages, *stored][-self.size :], older.system)
        if tails is not None:
            tails.put(self._tail, Tail(window, self.size, system))
        return window

    def _add(
        self, execute: Execute, now: float, records: Sequence[str], provenance: str | None
    ) -> tuple[int, int, Sequence[Any]]:
        """Gives what `_reserve` gives."""
        last, system, rows = self._reserve(execute, now)
        key = {"conversation": self.identity, "digest": self.digest, "last": last, "system": system, "created": now}
        execute(self.statements.add_append, key)
        message = {"conversation": self.identity, "created": now, "provenance": provenance}
        first = last - len(records) + 1
        new = [message | {"sequence": sequence, "record": record} for sequence, record in enumerate(records, first)]
        execute(self.statements.add_messages, new if len(new) > 1 else new[0])
        return last, system, rows

    def _add_later(
        self, execute: OnWriter, tail: Tail, now: float, record: str, provenance: str | None
    ) -> tuple[int, int]:
        """Sequences of the message and of the newest system message."""
        last = tail.last + 1
        system = last if self._system_offset else tail.system
        append = KnownAppend(self.identity, self.digest, last, system, record, now, provenance)
        execute.later(self.statements.append_known, append)
        return last, system

    def _at_once(self, execute: Execute, now: float, records: list[str], provenance: str | None) -> Window:
        tails = execute.tails
        # Nobody else has it meanwhile: what it holds is what the function finds unchanged, or is dropped.
        tail = tails.take(self._tail) if tails is not None else None
        known = tail.version if tail is not None and tail.is_enough(len(records), self.size) else None
        values = {
            "p_id": self.identity,
            "p_digest": self.digest,
            "p_namespace_id": hashed(self.namespace),
            "p_namespace": self.namespace or None,
            "p_memory_id": self.memory_id,
            "p_offset": self._system_offset,
            "p_now": now,
            "p_record": records[0],
            "p_more": records[1:] or None,
            "p_provenance": provenance,
            "p_size": self.size,
            "p_known_row": known and known[0],
            "p_known_updated": known and known[1],
        }
        head, *rows = execute(self.statements.append_at_once, values)
        last, system, row = appended(head)
        stored = self._stored(records, last - len(records) + 1, now)
        window = None if tail is None or rows else tail.append(stored, system, self.size)
        if tail is None or window is None:
            window = _window(rows, last - self.size)
            tail = Tail(window, self.size, system)
        tail.version = row, now
        if tails is not None:
            tails.put(self._tail, tail)
        return window

    @property
    def _tail(self) -> tuple[str, str]:
        return self.statements.store, self.identity

    def _stored(self, records: Sequence[str], first: int, now: float) -> list[StoredMessage]:
        # A tail keeps them: who gets a window must not change what it holds.
        provenance = MappingProxyType(dict(self.provenance)) if self.provenance else _UNKNOWN
        return [StoredMessage(sequence, record, now, provenance) for sequence, record in enumerate(records, first)]

    def replayed(self, execute: Execute) -> Window | None:
        """The window that ends at the messages of an earlier append with the same key; None without one."""
        found = execute(self.statements.replayed, {"p_id": self.identity, "p_digest": self.digest})
        if not found:
            return None
        last, system = int(found[0][0]), int(found[0][1])
        return window_until(execute, self.statements, self.identity, (last, system), last - self.size)

    @property
    def _system_offset(self) -> int:
        """Position of the newest system message among the new ones, 0 for none."""
        return max((n for n, message in enumerate(self.messages, 1) if message.role in SYSTEM_ROLES), default=0)

    def _reserve(self, execute: Execute, now: float) -> tuple[int, int, Sequence[Any]]:
        """Take the sequences of the new messages; the last of them, that of the newest system message, and the window
        before them where it came along."""
        count, offset = len(self.messages), self._system_offset
        values = {"p_id": self.identity, "p_count": count, "p_offset": offset, "p_now": now}
        if execute.dialect.update_returning:
            ends, window = execute(self.statements.reserve_returning, values), ()
        else:
            execute(self.statements.reserve, values)
            rows = execute(self.statements.window_and_ends, {"p_id": self.identity, "p_size": self.size})
            ends = [row[4:] for row in rows[:1]] or execute(self.statements.ends, {"p_id": self.identity})
            window = [row[:4] for row in rows]
        if ends:
            return int(ends[0][0]), int(ends[0][1]), window
        execute(
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
        return count, offset, ()
