"""What is measured alone: append one message to a conversation, then get its newest 50 messages.

A subject is made without arguments. `begin` gives it the folder or the URL it may use for one length of history;
`turns` is timed. Imports are inside: subjects run in environments of their own.
"""

import asyncio
import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WINDOW = 50


class Subject:
    """A way to keep a conversation."""

    def __init__(self) -> None:
        self._places: dict[int, Any] = {}
        self._lengths: dict[int, int] = {}

    async def begin(self, length: int, where: str) -> None:
        """Open a place for conversations of this length and fill the first."""
        self._places[length] = await self.open(where)
        await self._renew(length)

    async def turns(self, length: int, count: int) -> list[float]:
        """Seconds of each of `count` turns. A conversation that has grown by a fifth then gives way to a new one: not
        before a turn, or short ones, which do so more often, would be measured warm and long ones cold."""
        seconds: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            came = await self.turn(self._places[length], f"message {self._lengths[length]}")
            seconds.append(time.perf_counter() - began)
            self._lengths[length] += 1
            assert came == min(self._lengths[length], WINDOW), f"{came} messages came back"
        if self._lengths[length] - length > max(length // 5, 10):
            await self._renew(length)
        return seconds

    async def _renew(self, length: int) -> None:
        place = self._places[length]
        await self.clear(place)
        await self.fill(place, length)
        # Whatever the first turn of a connection has to prepare is not timed.
        await self.turn(place, "first")
        self._lengths[length] = length + 1

    async def open(self, where: str) -> Any: ...

    async def clear(self, place: Any) -> None: ...

    async def fill(self, place: Any, length: int) -> None:
        """In the quickest way there is."""

    async def turn(self, place: Any, text: str) -> int:
        """How many messages came back."""
        ...


class Ours(Subject):
    """A `MemoryStore` of this project, through its seam."""

    batch = 1000

    async def clear(self, place: Any) -> None:
        await place.delete("conversation")

    async def fill(self, place: Any, length: int) -> None:
        for start in range(0, length, self.batch):
            await self._append(place, [f"message {n}" for n in range(start, min(start + self.batch, length))], 1)

    async def turn(self, place: Any, text: str) -> int:
        return await self._append(place, [text], WINDOW)

    async def _append(self, place: Any, texts: Sequence[str], size: int) -> int:
        from mlserver_chat import AppendKey, Message

        messages = [Message.of_text("user", text) for text in texts]
        key = AppendKey("conversation", uuid.uuid4().hex, "bench", "content")
        return len((await place.append(key, messages, size)).messages)


class OursSql(Ours):
    async def open(self, where: str) -> Any:
        from mlserver_memory.sql import SqlStore

        return SqlStore(where)


class OursFiles(Ours):
    # As turns come: the file store keeps and reads the messages of one append together, and windows of few long records
    # and of many short ones are not the same work.
    batch = 1

    async def open(self, where: str) -> Any:
        from mlserver_memory.filesys import FileSysStore

        return FileSysStore(Path(where))


class Floor(Subject):
    """The same INSERT and window SELECT by hand on the same driver, in a thread as with us: no key, no order under
    concurrency, no pool."""

    mark = "%s"
    text = "TEXT"

    def connect(self, where: str) -> Callable[..., Any]:
        """What executes a statement and fetches its rows, if any."""
        ...

    async def open(self, where: str) -> Any:
        execute = self.connect(where)
        columns = f"conversation VARCHAR(64), sequence BIGINT, record {self.text}"
        execute(f"CREATE TABLE floor ({columns}, PRIMARY KEY (conversation, sequence))", ())
        return {"execute": execute, "next": 0}

    async def clear(self, place: Any) -> None:
        place["execute"]("DELETE FROM floor", ())

    async def fill(self, place: Any, length: int) -> None:
        place["execute"]("BEGIN", ())
        for number in range(length):
            self._insert(place, f"message {number}")
        place["execute"]("COMMIT", ())

    async def turn(self, place: Any, text: str) -> int:
        return await asyncio.to_thread(self._turn, place, text)

    def _turn(self, place: Any, text: str) -> int:
        self._insert(place, text)
        query = f"SELECT * FROM floor WHERE conversation = {self.mark} AND sequence > {self.mark} ORDER BY sequence"
        return len(place["execute"](query, ("conversation", place["next"] - WINDOW)))

    def _insert(self, place: Any, text: str) -> None:
        place["next"] += 1
        record = json.dumps({"role": "user", "content": [{"type": "text", "value": text}]})
        values = ("conversation", place["next"], record)
        place["execute"](f"INSERT INTO floor VALUES ({self.mark}, {self.mark}, {self.mark})", values)


def _execute_on(cursor: Any) -> Callable[..., Any]:
    def execute(statement: str, values: Sequence[object]) -> Any:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    return execute


class FloorSqlite(Floor):
    mark = "?"

    def connect(self, where: str) -> Callable[..., Any]:
        connection = sqlite3.connect(where, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return _execute_on(connection.cursor())


class FloorPsycopg(Floor):
    def connect(self, where: str) -> Callable[..., Any]:
        import psycopg

        return _execute_on(psycopg.connect(where, autocommit=True).cursor())


class FloorPg8000(Floor):
    def connect(self, where: str) -> Callable[..., Any]:
        import pg8000.dbapi
        from sqlalchemy import make_url

        url = make_url(where)
        connection = pg8000.dbapi.connect(user=url.username, host=url.host, port=url.port, database=url.database)
        connection.autocommit = True
        return _execute_on(connection.cursor())


class FloorPymysql(Floor):
    text = "LONGTEXT"

    def connect(self, where: str) -> Callable[..., Any]:
        import pymysql
        from sqlalchemy import make_url

        url = make_url(where)
        connection = pymysql.connect(
            user=url.username, host=url.host, port=url.port, database=url.database, autocommit=True
        )
        return _execute_on(connection.cursor())
