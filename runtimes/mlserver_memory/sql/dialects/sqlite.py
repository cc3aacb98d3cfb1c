"""File handling and locks for SQLite, which a database server would do by itself."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, event

FileId = tuple[int, int]
"""Device and inode of a file."""

_FILE = "mlserver_memory.file"
"""Key of the opened file in what the pool keeps about a connection."""

file_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""A lock for each file. The writers of this process queue here, which is fair, and SQLite's own waiting polls."""


def prepare(engine: Engine, path: str) -> None:
    """Make connections of `engine` use a write-ahead log, sync each commit before it is answered, and remember the file
    that they opened."""

    def connected(connection: Any, record: Any) -> None:
        # The driver begins no transaction by itself.
        connection.isolation_level = None
        _turn_to_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        # Message texts must not end up in temporary files.
        connection.execute("PRAGMA temp_store=MEMORY")
        # (0, 0) marks a file that was removed before it was looked at.
        record.info[_FILE] = file_id(path) or (0, 0)

    event.listen(engine, "connect", connected)


def _turn_to_wal(connection: Any) -> None:
    # SQLite rejects the second of two processes that turn a new file to WAL at once, without waiting.
    for pause in (0.02, 0.1, 0.5, None):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except Exception:
            if pause is None:
                raise
            time.sleep(pause)


def is_in_place(info: Mapping[Any, Any], path: str) -> bool:
    """Return whether a connection's file is still the one at `path`. SQLite goes on in a file that was removed.

    Args:
        info: what the pool keeps about the connection. Connections to servers have no file and are always in place.
    """
    return _FILE not in info or info[_FILE] == file_id(path)


def file_id(path: str) -> FileId | None:
    """Return the id of the file at `path`, None without one."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
