"""Runs transactions on one database in threads, and tracks whether it can be reached."""

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mlserver_chat import ChatError, InternalError, InvalidInput, NotReachable

from ..threads import Threads
from .dialects import BEGIN, sqlite
from .engines import make_engine, resolved
from .faults import DamagedData, Failure, Fault, cause_of, code_of, fault_of
from .writer import GroupCommit

logger = logging.getLogger("mlserver.memory")

T = TypeVar("T")

Mode = Callable[[], AbstractContextManager[Connection]]
"""A connection with or without a transaction around the block."""

_ATTEMPTS = 8
"""Tries of one transaction. A stale connection and a deadlock cost one each."""
_REST_SECONDS = 1.0
"""How long requests fail at once after the database could not be reached."""


class Database:
    """Runs transactions in threads.

    Args:
        url: SQLAlchemy URL; a relative SQLite file resolves against the data folder.
        options: options of `create_engine`.
        migrate: brings the schema up to date and commits. Called before the first transaction, and with True if tables
            are missing although the version is current.

    Raises:
        SettingsError: SQLAlchemy rejects the URL or an option, or the driver isn't installed.
    """

    def __init__(self, url: str, options: dict[str, Any], migrate: Callable[[Connection, bool], None]):
        self._url = resolved(url)
        self._file = str(self._url.database)
        self._engine = make_engine(self._url, options)
        self._migrate = migrate
        self._migrated = self._lacks_tables = False
        self._migrated_file: sqlite.FileId | None = None
        self._migration = threading.Lock()
        self._failure = ""
        self._retry_at = 0.0
        host = f"{self._url.host}/" if self._url.host else ""
        self.place = f"{self._url.get_backend_name()} {host}{self._url.database}"
        """Kind and place, without user and password."""
        threads = int(options.get("pool_size", 5)) + int(options.get("max_overflow", 10))
        self._threads = Threads(max(threads, 1), "memory-sql")
        self._writers = self._threads
        self._file_lock: AbstractContextManager[object] = nullcontext()
        self._group: GroupCommit | None = None
        if self._is_file:
            # One writer at a time: more threads would only wait, and leave none to the readers.
            self._writers = Threads(1, "memory-sqlite")
            self._group = GroupCommit(partial(self._run, self._transaction), self._writers)
            self._file_lock = sqlite.file_locks[self._file]
            # MLServer ends without unloading its models. Closing the last connection puts the write-ahead log into the
            # file, so that a copy of the file alone is complete.
            weakref.finalize(self, self._engine.dispose)

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect."""
        return self._engine.dialect

    @property
    def _is_file(self) -> bool:
        return self.dialect.name == "sqlite"

    @property
    def exists(self) -> bool:
        """Whether the database exists. Connecting to a SQLite file would create it."""
        return not self._is_file or Path(self._file).exists()

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
        """Run `work`, which only reads, without bringing the schema up to date."""
        return await self._threads.run(partial(self._run, needs_schema=False), self._statements, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction. It finishes even if the caller is cancelled.

        Raises:
            IntegrityError: a constraint of the schema was violated; nothing was written.
        """
        return await self._writers.run(self._run, self._transaction, work)

    async def append(self, work: Callable[[Connection], T], is_atomic: bool) -> T:
        """Run `work`, which appends, in a transaction. Appends on SQLite may share one.

        Args:
            is_atomic: a single statement of `work` writes and commits, so no transaction is needed.
        """
        if self._group is not None:
            return await self._group.run(work)
        return await self._writers.run(self._run, self._statements if is_atomic else self._transaction, work)

    async def aclose(self) -> None:
        """Wait for running transactions and close the pool."""
        await self._writers.aclose()
        await self._threads.aclose()
        self._engine.dispose()

    def _run(self, mode: Mode, work: Callable[[Connection], T], needs_schema: bool = True) -> T:
        if self._failure and time.monotonic() < self._retry_at:
            raise NotReachable("the memory store can't be reached")
        for attempt in range(_ATTEMPTS):
            try:
                if needs_schema and not self._migrated:
                    self._migrate_once()
                with mode() as connection:
                    result, info = self._result(work, connection), connection.info
            except IntegrityError:
                raise
            except (DBAPIError, PoolTimeout, OSError) as error:
                if self._has_another_file:
                    self._reopen()
                    continue
                fault = fault_of(error, self.dialect.name)
                if fault is Fault.NO_TABLE and attempt == 0 and needs_schema and self._migrated:
                    logger.error("tables of the memory store %s are missing; recreating them", self.place)
                    self._migrated, self._lacks_tables = False, True
                    continue
                if fault in (Fault.STALE, Fault.RACE_LOST) and attempt + 1 < _ATTEMPTS:
                    # A random pause keeps transactions from colliding again: MySQL locks gaps between new rows.
                    time.sleep(random.uniform(0, 0.005 * 2**attempt))  # noqa: S311
                    continue
                raise self._translate(error, fault) from None
            if sqlite.is_in_place(info, self._file):
                self._reached()
                return result
            self._reopen()
        raise NotReachable("the memory store can't be reached")

    def _result(self, work: Callable[[Connection], T], connection: Connection) -> T:
        try:
            return work(connection)
        except UnicodeEncodeError:
            # The database can't store the caller's text.
            raise
        except (ValueError, TypeError) as error:
            raise self._damaged(type(error).__name__) from error

    @contextmanager
    def _statements(self) -> Generator[Connection]:
        """A connection without a transaction, where the dialect allows it."""
        with self._engine.connect() if self.dialect.name in BEGIN else self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _transaction(self) -> Generator[Connection]:
        """A transaction. On SQLite it waits for the other writers of this process."""
        with self._file_lock, self._engine.begin() as connection:
            if self.dialect.name in BEGIN:
                connection.exec_driver_sql(BEGIN[self.dialect.name])
            yield connection

    def _migrate_once(self) -> None:
        with self._migration:
            if not self._migrated:
                if self._is_file:
                    # Connecting reports a folder that can't be created.
                    with suppress(OSError):
                        Path(self._file).parent.mkdir(parents=True, exist_ok=True)
                with self._file_lock, self._engine.connect() as connection:
                    self._migrate(connection, self._lacks_tables)
                self._lacks_tables = False
                self._migrated_file = sqlite.file_id(self._file) if self._is_file else None
                self._migrated = True

    @property
    def _has_another_file(self) -> bool:
        """Whether the schema was made in a file that is no longer there."""
        return self._is_file and self._migrated and self._migrated_file != sqlite.file_id(self._file)

    def _reopen(self) -> None:
        """Close connections to a file that is gone. The caller repeats its work in the present file."""
        logger.error("the file of the memory store %s was removed or replaced; reopening it", self.place)
        self._migrated = False
        self._engine.dispose()

    def _reached(self) -> None:
        if self._failure:
            logger.warning("the memory store %s can be reached again", self.place)
            self._failure = ""

    def _damaged(self, reason: str) -> DamagedData:
        logger.error("the memory store %s holds data that can't be read: %s", self.place, reason)
        return DamagedData()

    def _translate(self, error: Failure, fault: Fault) -> ChatError:
        reason = f"{type(cause_of(error)).__name__} {code_of(cause_of(error))}".strip()
        match fault:
            case Fault.NO_CONNECTION:
                return NotReachable("the memory store has no connection free")
            case Fault.BAD_TEXT:
                return InvalidInput("the memory store can't hold this text")
            case Fault.DISK_FULL:
                logger.error("the disk of the memory store %s is full", self.place)
                return NotReachable("the memory store's disk is full")
            case Fault.DAMAGED:
                return self._damaged(reason)
            case Fault.RACE_LOST | Fault.BUSY:
                logger.warning("the memory store %s is too busy: %s", self.place, reason)
                return NotReachable("the memory store is too busy")
            case Fault.NO_RIGHT:
                logger.error("the memory store %s lacks a privilege: %s", self.place, reason)
                return NotReachable(
                    "the memory store's user lacks a privilege; run 'mlserver-llm memory migrate' "
                    "with an account that may create tables"
                )
            case Fault.REFUSED | Fault.NO_TABLE:
                logger.error("the memory store %s rejected a statement: %s", self.place, reason)
                return InternalError()
            case Fault.STALE | Fault.DOWN:
                if not self._failure:
                    logger.error("the memory store %s can't be reached: %s", self.place, reason)
                self._failure = reason
                self._retry_at = time.monotonic() + _REST_SECONDS
                return NotReachable("the memory store can't be reached")
