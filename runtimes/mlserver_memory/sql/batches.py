"""SQLite's appends to conversations whose end is known: one statement for all that are committed together.

The driver lets other threads run at every step of a statement, and then waits for its turn, up to 5 ms where the event
loop has much to do. So a group of appends is one step, in which all of SQLite's work and the sync are done meanwhile.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect

from .direct import BEGIN, OnDriver, Statement, Texts, Values
from .schema import Tables
from .tails import Tails

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Appends a statement: few, so that the driver's cache keeps all of their texts."""


class KnownAppend(NamedTuple):
    """One message that is appended to a conversation whose end is known: the columns of the view."""

    id: str
    digest: str
    last: int
    """Sequence of the message, one after that of the newest one there."""
    system: int
    """That of the newest system message, 0 for none."""
    record: str
    created: float
    provenance: str | None


class KnownAppends(NamedTuple):
    """The statement for the stores over some tables: an INSERT into a view, whose trigger keeps the key and adds the
    message. Both are the connection's own, no part of the file's schema.

    A constraint is violated by a conversation that doesn't end as it is said to, a key that is known, and data of
    another version than the one given. What violates one rolls the transaction back as a whole, which spares SQLite the
    journal that it would keep of each statement.
    """

    made_by: tuple[str, ...]
    """Makes view and trigger."""
    texts: tuple[str, ...]
    """The statement for as many appends as `_SIZES` says; rows of NULL are none."""


class NotAsKnown(Exception):
    """Something is not as the tails say, or a key is known; nothing was written, and the tails are of no more use."""


def known_appends(tables: Tables) -> KnownAppends:
    """The statement for the stores over `tables`."""
    quote = sqlite.dialect().identifier_preparer.quote
    conversations, appends, messages = (
        quote(each.name) for each in (tables.conversations, tables.appends, tables.messages)
    )
    name = quote(tables.append)
    view = f"temp.{name}"
    columns = ", ".join(f'NULL AS "{each}"' for each in KnownAppend._fields)
    trigger = f"""
        CREATE TEMP TRIGGER IF NOT EXISTS {name} INSTEAD OF INSERT ON {view} BEGIN
          UPDATE {conversations} SET "last" = NEW."last", "system" = NEW."system", "messages" = "messages" + 1,
            oldest = CASE WHEN NEW."system" = NEW."last" THEN 0 ELSE oldest END, updated = NEW.created
          WHERE id = NEW.id AND "last" = NEW."last" - 1;
          INSERT INTO {appends} (conversation, digest, "last", "system", created) VALUES (
            (SELECT id FROM {conversations} WHERE id = NEW.id AND "last" = NEW."last"),
            NEW.digest, NEW."last", NEW."system", NEW.created);
          INSERT INTO {messages} (conversation, "sequence", "record", created, provenance)
          VALUES (NEW.id, NEW."last", NEW."record", NEW.created, NEW.provenance);
        END
        """  # noqa: S608 (quoted)
    row = f"({', '.join('?' * len(KnownAppend._fields))})"
    others = ", ".join(f"column{number}" for number in range(2, len(KnownAppend._fields) + 1))
    first = "CASE WHEN (SELECT data_version FROM pragma_data_version) = ? THEN column1 END"
    texts = tuple(
        f"INSERT OR ROLLBACK INTO {view} SELECT {first}, {others} "  # noqa: S608 (quoted)
        f"FROM (VALUES {', '.join([row] * size)}) WHERE column1 IS NOT NULL"
        for size in _SIZES
    )
    return KnownAppends((f"CREATE TEMP VIEW IF NOT EXISTS {view} AS SELECT {columns}", trigger), texts)


class OnWriter(OnDriver):
    """Executes on the connection that appends to a file: in a transaction whatever is no known append, and those in one
    statement, which is a transaction by itself where nothing else is executed.

    Args:
        made: which views the connection has.
        version: of the data that the tails belong to.
        is_fresh: whether the transaction has begun and the tails were empty then, so that they can't be wrong.
        batches: whether appends may be `later`.
    """

    def __init__(
        self,
        cursor: Any,
        dialect: Dialect,
        texts: Texts,
        tails: Tails,
        made: set[KnownAppends],
        version: int,
        is_fresh: bool,
        batches: bool,
    ):
        super().__init__(cursor, dialect, texts, tails)
        self.batches = batches
        self._made = made
        self._version = version
        self._is_fresh = self._has_begun = is_fresh
        self._kind: KnownAppends | None = None
        self._waiting: list[KnownAppend] = []

    def __call__(self, statement: Statement, values: Values) -> Sequence[Any]:
        """Execute, after what waits."""
        self._flush_in_transaction()
        return super().__call__(statement, values)

    def later(self, kind: KnownAppends, append: KnownAppend) -> None:
        """Append together with others, before the next statement or with `commit`."""
        if self._waiting and (kind != self._kind or len(self._waiting) == _SIZES[-1]):
            self._flush_in_transaction()
        self._kind = kind
        self._waiting.append(append)

    def commit(self) -> None:
        """Append what waits, and end the transaction if one has begun.

        Raises:
            NotAsKnown: which any statement may raise.
        """
        self._flush()
        if self._has_begun:
            self._cursor.execute("COMMIT")

    def _flush_in_transaction(self) -> None:
        if not self._has_begun:
            self._cursor.execute(BEGIN["sqlite"])
            self._has_begun = True
            if data_version(self._cursor) != self._version:
                raise NotAsKnown
        self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting or self._kind is None:
            return
        if self._kind not in self._made:
            for text in self._kind.made_by:
                self._cursor.execute(text)
            self._made.add(self._kind)
        index = bisect_left(_SIZES, len(waiting))
        values: list[Any] = [self._version]
        for append in waiting:
            values += append
        values += [None] * (len(KnownAppend._fields) * (_SIZES[index] - len(waiting)))
        try:
            self._cursor.execute(self._kind.texts[index], values)
        except self.dialect.loaded_dbapi.IntegrityError:
            if self._is_fresh:
                raise
            raise NotAsKnown from None


def data_version(cursor: Any) -> int:
    """What changes with everything that another connection commits."""
    return int(cursor.execute("PRAGMA data_version").fetchone()[0])
