"""What SQLite's connections need, and what a file asks for that a server would see to by itself."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

from .direct import Direct, OnDriver
from .tails import Tails

FileIdentity = tuple[int, int]
"""Device and number of a file."""

_FILE = "mlserver_memory.file"
"""Where a pooled connection keeps which file it has open."""
_TAILS = "mlserver_memory.tails"
"""Where the writing connection keeps tails, and the version of the data that they belong to."""

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


BEGIN_IMMEDIATE = "BEGIN IMMEDIATE"
"""Begins a transaction that is ready to write."""


@contextmanager
def appending(direct: Direct) -> Generator[OnDriver]:
    """A transaction that is ready to write, on the connection of `Writers`, with the tails of conversations."""
    with direct.transaction(BEGIN_IMMEDIATE) as execute:
        # Changes with what another connection commits, and not with what this one does.
        (version,) = execute.cursor.execute("PRAGMA data_version").fetchone()
        known, tails = execute.info.pop(_TAILS, (None, None))
        execute.tails = tails if tails is not None and known == version else Tails()
        yield execute
    execute.info[_TAILS] = version, execute.tails


class Writers:
    """The one connection through which all stores of this process write to a file.

    So the tails of conversations stay valid, whichever store appends, until another process writes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[Hashable, list[Engine]] = {}

    def engine(self, key: Hashable, make: Callable[[], Engine]) -> Engine:
        """The engine of the connection; given back as often as it was taken."""
        with self._lock:
            users = self._engines.setdefault(key, [])
            if not users:
                engine = make()
                event.listen(engine, "begin", _forget_tails)
                users.append(engine)
            else:
                users.append(users[0])
            return users[0]

    def give_back(self, key: Hashable) -> None:
        """Close the connection when nobody uses it any more."""
        with self._lock:
            engine = self._engines[key].pop()
            if not self._engines[key]:
                del self._engines[key]
                engine.dispose()


writers = Writers()


def _forget_tails(connection: Connection) -> None:
    """What SQLAlchemy executes here may change messages, and does not change this connection's version."""
    connection.info.pop(_TAILS, None)


def is_in_place(info: Mapping[Any, Any], path: str) -> bool:
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
