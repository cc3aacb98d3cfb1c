"""Executing on the driver itself what SQLAlchemy has written and pooled.

Through SQLAlchemy a statement costs some 15 µs and a checkout 25 µs more, several times what SQLite takes for the
statement. So what every turn of a conversation does goes this way, and everything else through SQLAlchemy.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from sqlalchemy import CompoundSelect, Connection, Engine, PoolProxiedConnection, Select, TextualSelect, UpdateBase
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIModule

from .tails import Tails

T = TypeVar("T")

Statement = Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]] | TextualSelect | UpdateBase

Values = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""The values of a statement, or those of each time that it is executed."""

Info = Mapping[Any, Any]
"""What the pool keeps about a connection."""

Texts = dict[Statement, "_Text"]
"""What statements are for one driver."""

BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}
"""Begins a transaction that is ready to write, on databases where a statement otherwise commits by itself here: that
saves the round trips of a transaction."""

_DRIVERS = ("pysqlite", "psycopg", "pg8000", "pymysql")
"""Drivers that take and give this store's values as they are; for others SQLAlchemy converts them."""


class Execute(Protocol):
    """Executes a statement with its values; gives its rows, if it has any."""

    @property
    def dialect(self) -> Dialect:
        """The dialect of the connection."""
        ...

    @property
    def tails(self) -> Tails | None:
        """What conversations end with, where that is known."""
        ...

    def __call__(self, statement: Statement, values: Values) -> Sequence[Any]:
        """Execute."""
        ...


Work = Callable[[Execute], T]
"""What happens between begin and commit."""


class ThroughSqlAlchemy:
    """Executes as SQLAlchemy does."""

    tails = None

    def __init__(self, connection: Connection):
        self._connection = connection
        self.dialect = connection.dialect

    def __call__(self, statement: Statement, values: Values) -> Sequence[Any]:
        """Execute."""
        result = self._connection.execute(statement, values)
        return result.all() if result.returns_rows else ()


class Direct:
    """Runs work on connections of an engine's pool, without SQLAlchemy around statements and errors.

    Args:
        engine: the engine; its pool resets nothing.
        commits_by_itself: whether each statement is a transaction, unless one is begun.
        tails: what conversations end with, where that is known.
    """

    def __init__(self, engine: Engine, commits_by_itself: bool, tails: Tails | None = None):
        self._engine = engine
        self._commits_by_itself = commits_by_itself
        self._tails = tails
        self._texts: Texts = {}

    @property
    def is_possible(self) -> bool:
        """Whether the driver is one that this was written for."""
        return self._engine.dialect.driver in _DRIVERS

    @property
    def errors(self) -> DBAPIModule:
        """The driver's module, with its kinds of errors."""
        return self._engine.dialect.loaded_dbapi

    def read(self, work: Work[T]) -> tuple[T, Info]:
        """Run `work`, which only reads. Errors are the driver's."""
        return self._run(work, "" if self._commits_by_itself else "rollback")

    def write(self, work: Work[T]) -> tuple[T, Info]:
        """Run `work` in a transaction, which the driver begins; where statements commit by themselves, `work` is one.
        Errors are the driver's."""
        return self._run(work, "" if self._commits_by_itself else "commit")

    def _run(self, work: Work[T], end: str) -> tuple[T, Info]:
        pooled = self._engine.raw_connection()
        try:
            result = work(self._on(pooled))
            if end:
                getattr(pooled, end)()
            return result, pooled.info
        except BaseException as error:
            self._failed(pooled, error)
            raise
        finally:
            pooled.close()

    def _on(self, pooled: PoolProxiedConnection) -> "OnDriver":
        return OnDriver(pooled.cursor(), self._engine.dialect, self._texts, self._tails)

    def _failed(self, pooled: PoolProxiedConnection, error: BaseException) -> None:
        """Undo what was begun, and give up a connection that may be gone."""
        is_gone = isinstance(error, (self.errors.OperationalError, self.errors.InterfaceError, OSError))
        # Not with a server that may be gone; SQLite's file would stay locked until the error is forgotten.
        if not is_gone or self._engine.dialect.name == "sqlite":
            with suppress(self.errors.Error, OSError):
                pooled.rollback()
        if is_gone:
            pooled.invalidate()


class OnDriver:
    """Executes on one cursor of the driver."""

    def __init__(self, cursor: Any, dialect: Dialect, texts: Texts, tails: Tails | None):
        self.dialect = dialect
        self.tails = tails
        self._cursor = cursor
        self._texts = texts

    def __call__(self, statement: Statement, values: Values) -> Sequence[Any]:
        """Execute."""
        text = self._texts.get(statement) or self._texts.setdefault(statement, _Text(statement, self.dialect))
        cursor = self._cursor
        if isinstance(values, Mapping):
            cursor.execute(text.text, text.bound(values))
        else:
            cursor.executemany(text.text, [text.bound(each) for each in values])
        return cursor.fetchall() if text.has_rows else ()


class _Text:
    """A statement as its driver wants it."""

    def __init__(self, statement: Statement, dialect: Dialect):
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self.has_rows = not isinstance(statement, UpdateBase) or bool(statement.returning_column_descriptions)
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        self._order = compiled.positiontup

    def bound(self, values: Mapping[str, Any]) -> Any:
        """The values under their names, or by position where the driver wants that."""
        every = {**self._constants, **values} if self._constants else values
        return every if self._order is None else [every[name] for name in self._order]
