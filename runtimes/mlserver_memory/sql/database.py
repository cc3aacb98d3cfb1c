"""One database: its pool, its threads, what its errors mean, and whether it can be reached."""

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mlserver_chat import ChatError, InternalError, InvalidInput, NotReachable, SettingsError, data_folder

from ..threads import Threads
from . import postgres, sqlite
from .direct import Direct, Info, ThroughSqlAlchemy, Work
from .writer import GroupCommit

logger = logging.getLogger("mlserver.memory")

T = TypeVar("T")

Mode = Callable[[], AbstractContextManager[Connection]]
"""A connection with or without a transaction around the block."""

OnDriver = Callable[[Work[Any]], tuple[Any, Info]]
"""Runs work on the driver itself."""

_ATTEMPTS = 4
"""Tries of one transaction: a stale connection and a lost race for a lock cost one each."""
_REST_SECONDS = 1.0
"""How long a database that could not be reached is left alone."""
_CONNECT_TIMEOUT: dict[str, dict[str, Any]] = {
    "pg8000": {"timeout": 10},
    # Afterwards, how long a network may be cut before the connection is given up: milliseconds, seconds.
    "psycopg": {"connect_timeout": 10, "tcp_user_timeout": 30_000},
    "pymysql": {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60},
    "pymssql": {"login_timeout": 10},
    "oracledb": {"tcp_connect_timeout": 10.0},
    "pysqlite": {"timeout": 30},
}
"""Seconds to wait for a connection (for SQLite, for another process's transaction), where the URL says nothing."""
_RACE_LOST = frozenset(("40001", "40P01", "1205", "1213", "60", "8177"))
"""Deadlock and serialisation failure: SQLSTATE (PostgreSQL), number (SQL Server, MySQL, Oracle)."""

_WAITED = {"sqlite": "SQLITE_BUSY", "mysql": "1205", "mariadb": "1205"}
"""What a lock is called that was waited for in vain: it isn't waited for again."""

_HUNG_UP = ("57P0", "08")
"""SQLSTATEs of a connection that is gone; a driver may report them as any other error of the server."""

_NO_DATA = "22"
"""Class of PostgreSQL's SQLSTATEs of values that it can't hold, which pg8000 reports as any error of the server."""

_NO_TABLE = frozenset(("42P01", "42883", "1146", "208", "942", "SQLITE_ERROR"))
"""What a missing table or function is called: SQLSTATE (PostgreSQL), number (MySQL, SQL Server, Oracle), and SQLite's
name of this and other errors."""

_NO_RIGHT = "42501"
"""PostgreSQL's SQLSTATE of a user who may not do this."""

_DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
"""A file that is no database, or no longer one: a good one may be put back while the server runs."""


class Database:
    """Runs transactions in threads.

    Args:
        url: SQLAlchemy URL; a relative SQLite file resolves against the data folder.
        options: options of `create_engine`.
        migrate: brings the schema up to date and commits, before the first transaction.

    Raises:
        SettingsError: a URL or an option that SQLAlchemy refuses, or a driver that isn't installed.
    """

    def __init__(self, url: str, options: dict[str, Any], migrate: Callable[[Connection], None]):
        self._url = _resolved(url)
        self._file = str(self._url.database)
        self._engine = _engine(self._url, options)
        self._migrate = migrate
        self._migrated = False
        self._migrated_file: sqlite.FileIdentity | None = None
        self._migration = threading.Lock()
        self._is_closed = False
        self._failure = ""
        self._retry_at = 0.0
        self._name = f"{self._url.get_backend_name()} {self._url.host or ''}/{self._url.database}"
        threads = int(options.get("pool_size", 5)) + int(options.get("max_overflow", 10))
        self._threads = Threads(max(threads, 1), "memory-sql")
        self._writers = self._threads
        self._transactions = self._engine
        self._file_lock: AbstractContextManager[object] = nullcontext()
        self._group: GroupCommit | None = None
        self._writer: sqlite.Writer | None = None
        # Where a statement commits by itself, that saves the round trips of a transaction.
        self._commits_by_itself = self.dialect in ("postgresql", "sqlite")
        tails = postgres.tails[self._url] if self.dialect == "postgresql" else None
        self._direct = Direct(self._engine, self._commits_by_itself, tails)
        if self.dialect == "postgresql":
            self._transactions = self._engine.execution_options(isolation_level="READ COMMITTED")
        if self.dialect == "sqlite":
            # One writer at a time: more threads would only wait, and leave none to the readers.
            self._writers = Threads(1, "memory-sqlite")
            self._group = GroupCommit(self._append, self._writers)
            self._file_lock = lock = sqlite.file_locks[self._file]
            self._writer_key = self._url, repr(options)
            single = options | {"pool_size": 1, "max_overflow": 0}
            self._writer = sqlite.writers.take(
                self._writer_key, lambda: sqlite.Writer(_engine(self._url, single), lock)
            )

    @property
    def dialect(self) -> str:
        """SQLAlchemy's name of the dialect."""
        return self._engine.dialect.name

    @property
    def exists(self) -> bool:
        """Whether there is something to connect to that connecting would not make."""
        return self.dialect != "sqlite" or Path(self._file).exists()

    @property
    def failure(self) -> str:
        """Why the database can't be reached; "" when it can."""
        return self._failure

    async def open(self) -> None:
        """Reach the database and bring its schema up to date."""
        await self.write(lambda connection: None)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads."""
        return await self._threads.run(self._run, self._statements, work)

    async def look(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads, on whatever schema there is."""
        return await self._threads.run(partial(self._run, needs_schema=False), self._statements, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction; a cancelled caller leaves it to finish.

        Raises:
            IntegrityError: a constraint of the schema was violated; nothing was written.
        """
        return await self._writers.run(self._run, self._transaction, work)

    async def query(self, work: Work[T]) -> T:
        """As `read`, for what every turn of a conversation does."""
        return await self._threads.run(self._run_directly, self._direct.read, self._statements, work)

    async def append(self, work: Work[T]) -> T:
        """As `write`, for what every turn of a conversation does; on PostgreSQL `work` writes with one statement, which
        commits by itself, and on SQLite others may share the transaction."""
        if self._group is not None:
            return await self._group.run(work)
        return await self._writers.run(self._append, work)

    async def aclose(self) -> None:
        """Wait for running transactions and close the pool."""
        await self._writers.aclose()
        await self._threads.aclose()
        self._engine.dispose()
        if self._writer is not None and not self._is_closed:
            sqlite.writers.give_back(self._writer_key)
        self._is_closed = True

    def _append(self, work: Work[Any]) -> Any:
        if self.dialect == "postgresql":
            return self._run_directly(self._direct.read, self._statements, work)
        return self._run_directly((self._writer or self._direct).write, self._transaction, work)

    def _run_directly(self, on_driver: OnDriver, mode: Mode, work: Work[T]) -> T:
        """Run `work` on the driver. What fails there is done again through SQLAlchemy, which knows what each driver's
        errors mean."""
        if self._direct.is_possible and self._migrated and not self._failure:
            try:
                result, info = on_driver(work)
                if sqlite.is_in_place(info, self._file):
                    return result
                self._reopen()
            except self._direct.errors.IntegrityError as error:
                raise IntegrityError(None, None, error) from None
            except PoolTimeout as error:
                raise self._translate(error) from None
            except (self._direct.errors.Error, OSError) as error:
                if self._was_waited_for(error):
                    raise self._translate(OperationalError(None, None, error)) from None
        return self._run(mode, lambda connection: work(ThroughSqlAlchemy(connection)))

    def _run(self, mode: Mode, work: Callable[[Connection], T], needs_schema: bool = True) -> T:
        if self._failure and time.monotonic() < self._retry_at:
            raise NotReachable("the memory store can't be reached")
        for attempt in range(_ATTEMPTS):
            try:
                if needs_schema and not self._migrated:
                    self._migrate_once()
                with mode() as connection:
                    result, info = work(connection), connection.info
            except IntegrityError:
                raise
            except (DBAPIError, PoolTimeout, OSError) as error:
                if self._has_another_file:
                    self._reopen()
                    continue
                if attempt == 0 and needs_schema and self._migrated and _is_without_table(error):
                    logger.error("the tables of the memory store %s are gone; making them anew", self._name)
                    self._migrated = False
                    continue
                if attempt + 1 < _ATTEMPTS and _may_retry(error) and not self._was_waited_for(_cause(error)):
                    time.sleep(0.01 * attempt)
                    continue
                raise self._translate(error) from None
            if sqlite.is_in_place(info, self._file):
                self._reached()
                return result
            self._reopen()
        raise NotReachable("the memory store can't be reached")

    @contextmanager
    def _statements(self) -> Generator[Connection]:
        """A connection for statements that each stand for themselves, or for a transaction that only reads."""
        with self._engine.connect() if self._commits_by_itself else self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _transaction(self) -> Generator[Connection]:
        """A transaction; on SQLite one that is ready to write, behind the other writers of this process."""
        with self._file_lock, self._transactions.begin() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql(sqlite.BEGIN_IMMEDIATE)
            yield connection

    def _migrate_once(self) -> None:
        with self._migration:
            if not self._migrated:
                if self.dialect == "sqlite":
                    # A folder that can't be made is a database that can't be reached.
                    with suppress(OSError):
                        Path(self._file).parent.mkdir(parents=True, exist_ok=True)
                with self._file_lock, self._transactions.connect() as connection:
                    self._migrate(connection)
                self._migrated_file = sqlite.identity(self._file) if self.dialect == "sqlite" else None
                self._migrated = True

    @property
    def _has_another_file(self) -> bool:
        """Whether the schema was made in a file that is no longer there."""
        return self.dialect == "sqlite" and self._migrated and self._migrated_file != sqlite.identity(self._file)

    def _reopen(self) -> None:
        """What was done in a file that is no longer there is done again in the one that is."""
        logger.error("the file of the memory store %s was removed or replaced; opening it anew", self._name)
        self._migrated = False
        self._engine.dispose()
        if self._writer is not None:
            self._writer.close()

    def _reached(self) -> None:
        if self._failure:
            logger.warning("the memory store %s can be reached again", self._name)
            self._failure = ""

    def _was_waited_for(self, cause: BaseException | None) -> bool:
        return self.dialect in _WAITED and _code(cause).startswith(_WAITED[self.dialect])

    def _translate(self, error: DBAPIError | PoolTimeout | OSError) -> ChatError:
        if isinstance(error, PoolTimeout):
            return NotReachable("the memory store has no connection free")
        cause = _cause(error)
        if isinstance(error, DataError) or (isinstance(error, DBAPIError) and _code(cause).startswith(_NO_DATA)):
            return InvalidInput("the memory store can't hold this text")
        reason = f"{type(cause).__name__} {_code(cause)}".strip()
        is_down = isinstance(error, OperationalError | InterfaceError) or _code(cause).startswith(_DAMAGED)
        if _code(cause) in _RACE_LOST or self._was_waited_for(cause):
            logger.warning("the memory store %s is too busy: %s", self._name, reason)
            return NotReachable("the memory store is too busy")
        if _code(cause) == _NO_RIGHT:
            logger.error("the memory store %s lacks a right: %s", self._name, reason)
            return NotReachable(
                "the memory store's user lacks a right; 'mlserver-llm memory migrate' needs more than it"
            )
        if isinstance(error, DBAPIError) and not (error.connection_invalidated or is_down):
            logger.error("the memory store %s refused a statement: %s", self._name, reason)
            return InternalError()
        if not self._failure:
            logger.error("the memory store %s can't be reached: %s", self._name, reason)
        self._failure = reason
        self._retry_at = time.monotonic() + _REST_SECONDS
        return NotReachable("the memory store can't be reached")


def _resolved(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("'parameters.extra.config.url' is not a SQLAlchemy URL") from None
    if parsed.get_backend_name() != "sqlite":
        return parsed
    if not parsed.database or parsed.database == ":memory:" or "memory" in str(parsed.query.get("mode", "")):
        raise SettingsError("'parameters.extra.config.url' names a SQLite database in memory; expected a file")
    path = data_folder() / parsed.database
    logger.info("memory is stored in %s", path)
    return parsed.set(database=str(path))


def _engine(url: URL, options: dict[str, Any]) -> Engine:
    if "isolation_level" in options:
        raise SettingsError("'connection_options' has 'isolation_level', which the store chooses itself; leave it out")
    try:
        driver = url.get_dialect()().driver
        connect = _CONNECT_TIMEOUT.get(driver, {}) | dict(options.get("connect_args", {}))
        connect = {key: value for key, value in connect.items() if key not in url.query}
        # Values of a statement are messages and ids: they must not show in errors and logs.
        ours: dict[str, Any] = {"connect_args": connect, "hide_parameters": True}
        # Every transaction here is ended by its own commit or rollback; another rollback would be a round trip.
        ours |= {"pool_use_lifo": True, "pool_reset_on_return": None}
        if url.get_backend_name() == "postgresql":
            ours["isolation_level"] = "AUTOCOMMIT"
        engine = create_engine(url, **(options | ours))
    except ModuleNotFoundError as error:
        raise SettingsError(f"'parameters.extra.config.url' needs the driver '{error.name}'; install it") from None
    except (ArgumentError, TypeError, ValueError):
        raise SettingsError(
            "'parameters.extra.config' has a 'url' or 'connection_options' that SQLAlchemy refuses"
        ) from None
    event.listen(engine, "handle_error", _recognise_disconnect)
    if url.get_backend_name() == "sqlite":
        sqlite.prepare(engine, str(url.database))
    if url.get_backend_name() == "postgresql":
        event.listen(engine, "connect", postgres.connected)
    return engine


def _recognise_disconnect(context: ExceptionContext) -> None:
    """A server that says why it hangs up (shutdown, an administrator's command) has hung up all the same, and pg8000
    lets the socket's own errors through."""
    error = context.original_exception
    if isinstance(error, OSError):
        context.is_disconnect = True
        raise OperationalError(None, None, error, hide_parameters=True, connection_invalidated=True)
    if _code(error).startswith(_HUNG_UP):
        context.is_disconnect = True


def _cause(error: DBAPIError | PoolTimeout | OSError) -> BaseException | None:
    """The driver's error."""
    return error.orig if isinstance(error, DBAPIError) else error


def _code(error: BaseException | None) -> str:
    """What the database calls a driver's error: SQLSTATE or number."""
    first: Any = error.args[0] if error is not None and error.args else None
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    # MySQL has one SQLSTATE for many numbers.
    if code is None or isinstance(first, int):
        # pg8000 gives the server's fields, `C` being the SQLSTATE; oracledb an object; others a number.
        code = cast(dict[str, Any], first).get("C") if isinstance(first, dict) else getattr(first, "code", first)
    return str(code) if isinstance(code, int) or (isinstance(code, str) and len(code) < 40) else ""


def _is_without_table(error: DBAPIError | PoolTimeout | OSError) -> bool:
    """Whether what the migration makes is not there, as after a database was made anew."""
    cause = _cause(error)
    code = _code(cause)
    return code in _NO_TABLE and (code != "SQLITE_ERROR" or "no such table" in str(cause))


def _may_retry(error: DBAPIError | PoolTimeout | OSError) -> bool:
    """Whether another try may help at once: the connection was stale, or a race for a lock was lost."""
    cause = _cause(error)
    if isinstance(cause, TimeoutError | PoolTimeout):
        return False
    return not isinstance(error, DBAPIError) or error.connection_invalidated or _code(cause) in _RACE_LOST


def _without_traceback(record: logging.LogRecord) -> bool:
    """SQLAlchemy's pool logs what went wrong while a broken connection was closed, with the values of statements."""
    record.exc_info = None
    return True


logging.getLogger("sqlalchemy.pool.impl.QueuePool").addFilter(_without_traceback)
