"""A memory model of the last clever release with one of its pieces switched off; `ablation.py` serves it.

`ABLATE` names the pieces, separated by commas. Each patch replaces one piece by the plain way to do the same.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlserver_memory.sql.direct import OnDriver

import mlserver_memory.threads
from mlserver_chat import Window
from mlserver_memory.sql import batches, database, direct, rows, tails, writer


class PlainThreads:
    """`Threads` over the standard library's pool."""

    def __init__(self, most: int, name: str):
        self._executor = ThreadPoolExecutor(most, name)

    async def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    def submit(self, job: Callable[[], Any]) -> None:
        def work() -> None:
            last = job()
            if last is not None:
                last()

        self._executor.submit(work)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._executor.shutdown)


def without_cache() -> None:
    """Every append reads its window."""
    tails.Tails.take = lambda self, identity: None  # type: ignore[method-assign]
    tails.Tails.put = lambda self, identity, tail: None  # type: ignore[method-assign]


def without_batches() -> None:
    """An append on SQLite is a few statements in a transaction."""
    make = batches.OnWriter.__init__

    def plain(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        self.batches = False

    batches.OnWriter.__init__ = plain  # type: ignore[method-assign]


def without_direct() -> None:
    """SQLAlchemy executes. The cache and the batches are a part of what executes otherwise, and go along on SQLite."""
    direct.Direct.is_possible = False  # type: ignore[assignment, method-assign]


def without_function() -> None:
    """An append on PostgreSQL is a few statements in a transaction. The cache goes along: the function validates it."""

    def plain(self: Any, execute: Any, now: float, records: list[str], provenance: str | None) -> Window:
        on_driver = isinstance(execute, OnDriver)
        begin = execute._cursor.execute if on_driver else execute._connection.exec_driver_sql
        begin("BEGIN")
        last, system, _ = self._add(execute, now, records, provenance)
        window = rows.window_until(execute, self.statements, self.identity, (last, system), last - self.size)
        begin("COMMIT")
        return window

    rows.Append._at_once = plain  # type: ignore[method-assign]


def without_threads() -> None:
    """The standard library's thread pool runs what blocks."""
    mlserver_memory.threads.Threads = database.Threads = PlainThreads  # type: ignore[assignment, misc]


def without_group_commit() -> None:
    """Every append on SQLite is a transaction of its own."""

    async def alone(self: Any, work: Any) -> Any:
        return await self._writer.run(self._transaction, work)

    writer.GroupCommit.run = alone  # type: ignore[method-assign]


PIECES = {
    "cache": without_cache,
    "batches": without_batches,
    "direct": without_direct,
    "function": without_function,
    "threads": without_threads,
    "group": without_group_commit,
}
for piece in filter(None, os.environ.get("ABLATE", "").split(",")):
    PIECES[piece]()

from mlserver_memory import ConversationalMemory  # noqa: E402


class Ablated(ConversationalMemory):
    """Serves with the pieces that are left."""
