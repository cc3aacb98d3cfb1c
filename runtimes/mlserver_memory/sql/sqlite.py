"""What SQLite's connections need, and what a file asks for that a server would see to by itself."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, event

FileIdentity = tuple[int, int]
"""Device and number of a file."""

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
