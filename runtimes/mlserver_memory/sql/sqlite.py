"""What SQLite's connections need, and what a file asks for that a server would see to by itself."""

import atexit
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from sqlalchemy import Engine, PoolProxiedConnection, event

from .batches import KnownAppends, NotAsKnown, OnWriter, data_version
from .direct import BEGIN, Direct, Info, Work
from .tails import Tails

T = TypeVar("T")

FileIdentity = tuple[int, int]
"""Device and number of a file."""

_SHORT = 0.01
"""Seconds that nobody calls waiting."""

_FILE = "mlserver_memory.file"
"""Where a pooled connection keeps which file it has open."""

file_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""A lock for each file: the writers of this process queue here, which is fair and doesn't poll."""


def prepare(engine: Engine, path: str) -> None:
    """Connections of `engine` with a write-ahead log and no commit answered before it is on the disk
    (`synchronous=FULL`), which know the file that they opened."""

    def connected(connection: Any, record: Any) -> None:
        # The driver begins nothing by itself.
        connection.isolation_level = None
        _turn_to_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        # No texts in temporary files.
        connection.execute("PRAGMA temp_store=MEMORY")
        # None there at all is a file that was removed, too.
        record.info[_FILE] = identity(path) or (0, 0)

    event.listen(engine, "connect", connected)


def _turn_to_wal(connection: Any) -> None:
    # Two processes that turn a new file to WAL at once: SQLite refuses the second without waiting.
    for pause in (0.02, 0.1, 0.5, None):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except Exception:
            if pause is None:
                raise
            time.sleep(pause)


class Writer(Direct):
    """The connection through which the stores of this process with one URL and the same options append to a file.

    So the tails of conversations stay valid, whichever store appends, until another connection commits.

    Args:
        engine: makes the connection, which is kept.
        lock: that of the file.
    """

    def __init__(self, engine: Engine, lock: threading.Lock):
        super().__init__(engine, commits_by_itself=True)
        self._lock = lock
        self._pooled: PoolProxiedConnection | None = None
        self._version = 0
        """Of the data that the tails belong to; changes with what another connection commits."""
        self._made: set[KnownAppends] = set()
        self._has_triggers = False
        """Whether somebody's triggers are in the file: they would have the ways with conflicts of the statement around
        them, and one that commits by itself would keep what RAISE(FAIL) leaves half done."""

    def write(self, work: Work[T]) -> tuple[T, Info]:
        """Run `work` in a transaction, behind the other writers of this process. Errors are the driver's."""
        with self._lock:
            pooled = self._pooled = self._pooled or self._engine.raw_connection()
            try:
                return self._transaction(pooled, work), pooled.info
            except BaseException as error:
                self._failed(pooled, error)
                self._give_back()
                raise

    def _transaction(self, pooled: PoolProxiedConnection, work: Work[T]) -> T:
        cursor, began = pooled.cursor(), time.monotonic()
        if self._tails is not None:
            try:
                return self._done(cursor, work, self._tails, is_fresh=False)
            except NotAsKnown:
                pooled.rollback()
                self._forget()
        _begin(cursor, time.monotonic() - began)
        self._tails, self._version = Tails(), data_version(cursor)
        self._has_triggers = bool(cursor.execute("SELECT 1 FROM sqlite_master WHERE type = 'trigger'").fetchone())
        return self._done(cursor, work, self._tails, is_fresh=True)

    def _done(self, cursor: Any, work: Work[T], tails: Tails, is_fresh: bool) -> T:
        on = OnWriter(
            cursor,
            self._engine.dialect,
            self._texts,
            tails,
            self._made,
            self._version,
            is_fresh,
            not self._has_triggers,
        )
        result = work(on)
        on.commit()
        return result

    def close(self) -> None:
        """Close the connection; the next `write` makes another."""
        with self._lock:
            self._give_back()
            self._engine.dispose()

    def close_at_exit(self) -> None:
        """Close the connection, whoever uses it, unless that would take long."""
        if self._lock.acquire(timeout=1):
            try:
                self._give_back()
                self._engine.dispose()
            finally:
                self._lock.release()

    def _give_back(self) -> None:
        if self._pooled is not None:
            self._pooled.close()
        self._pooled = None
        self._forget()

    def _forget(self) -> None:
        # The tails hold what a transaction that failed had appended, and views that it had made are gone.
        self._tails, self._made = None, set()


def _begin(cursor: Any, waited: float) -> None:
    """A file that was waited for, these seconds, isn't waited for as long again."""
    if waited < _SHORT:
        cursor.execute(BEGIN["sqlite"])
        return
    (timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    cursor.execute(f"PRAGMA busy_timeout = {max(timeout - int(waited * 1000), 0)}")
    try:
        cursor.execute(BEGIN["sqlite"])
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {timeout}")


class Writers:
    """The writers of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[Hashable, list[Writer]] = {}

    def take(self, key: Hashable, make: Callable[[], Writer]) -> Writer:
        """The writer with this key, to be given back as often as it was taken."""
        with self._lock:
            users = self._users.setdefault(key, [])
            users.append(users[0] if users else make())
            return users[0]

    def give_back(self, key: Hashable) -> None:
        """Close it when nobody uses it any more."""
        with self._lock:
            writer = self._users[key].pop()
            is_used = bool(self._users[key])
            if not is_used:
                del self._users[key]
        if not is_used:
            writer.close()

    def close_at_exit(self) -> None:
        """MLServer ends without unloading its models. What closes a file last puts its write-ahead log into it, so that
        a copy of the file alone is a whole one."""
        for users in list(self._users.values()):
            users[0].close_at_exit()


writers = Writers()
atexit.register(writers.close_at_exit)


def is_in_place(info: Info, path: str) -> bool:
    """Whether the file that a connection has open is still the one at `path`: SQLite goes on in it also when it was
    removed or replaced. `info` is what the pool keeps about the connection; other databases have no file."""
    return _FILE not in info or info[_FILE] == identity(path)


def identity(path: str) -> FileIdentity | None:
    """The file that is at `path`, None without one."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
