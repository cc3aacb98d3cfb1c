"""What is measured under load: many callers of one store at once, against the bare pool.

The bare pool is the store's own way to append (`Database._append`), called by as many threads as the pool has
connections, each with conversations of its own: no event loop, no shared commits, no answer to anybody.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlserver_chat import AppendKey, MemoryStore, Message
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.sql import SqlStore
from mlserver_memory.sql.messages import NewMessages

WINDOW = 50
POOL = {"pool_size": 15, "max_overflow": 0}


def _key(memory_id: str, identity: str | None = None) -> AppendKey:
    return AppendKey(memory_id, identity or uuid.uuid4().hex, "bench", "content")


class Store:
    """A `MemoryStore` of this project, through its seam."""

    store: MemoryStore

    async def begin(self, where: str) -> None:
        self.store = SqlStore(where, POOL) if "://" in where else FileSysStore(Path(where))
        await self.store.open()

    async def conversations(self, count: int, turns: int) -> float:
        """Appends a second of `count` callers at once, each with a conversation of its own."""
        return await self._rate([f"conversation {n}" for n in range(count)], turns)

    async def writers(self, count: int, turns: int) -> float:
        """Appends a second of `count` callers of one conversation, which is then checked."""
        memory_id = uuid.uuid4().hex
        rate = await self._rate([memory_id] * count, turns)
        stored = await self.store.read(memory_id, limit=count * turns + 1)
        assert [message.sequence for message in stored] == list(range(1, count * turns + 1)), "no total order"
        said = [message.message.text.split() for message in stored]
        for writer in range(count):
            mine = [int(turn) for name, turn in said if int(name) == writer]
            assert mine == list(range(turns)), f"writer {writer} finds its messages in another order"
        return rate

    async def _rate(self, memory_ids: Sequence[str], turns: int) -> float:
        async def talk(name: int, memory_id: str) -> None:
            for turn in range(turns):
                await self.store.append(_key(memory_id), [Message.of_text("user", f"{name} {turn}")], WINDOW)

        began = time.perf_counter()
        await asyncio.gather(*(talk(name, memory_id) for name, memory_id in enumerate(memory_ids)))
        return len(memory_ids) * turns / (time.perf_counter() - began)


class Pool:
    """The bare pool."""

    async def begin(self, where: str) -> None:
        self.store: Any = SqlStore(where, POOL)
        await self.store.open()
        self.threads = ThreadPoolExecutor(POOL["pool_size"])

    async def conversations(self, count: int, turns: int) -> float:
        """Appends a second over `count` conversations."""
        return await asyncio.to_thread(self._rate, [f"conversation {n}" for n in range(count)], turns)

    def _rate(self, memory_ids: Sequence[str], turns: int) -> float:
        # Databases that lock gaps let no two new conversations begin at once without a retry.
        for memory_id in memory_ids:
            self._turn(memory_id)
        size = POOL["pool_size"]
        shares = [[each for each in memory_ids[n::size] for _ in range(turns)] for n in range(size)]
        began = time.perf_counter()
        list(self.threads.map(self._turns, shares))
        return len(memory_ids) * turns / (time.perf_counter() - began)

    def _turns(self, memory_ids: Sequence[str]) -> None:
        for memory_id in memory_ids:
            self._turn(memory_id)

    def _turn(self, memory_id: str) -> None:
        store, messages = self.store, [Message.of_text("user", "0 0")]
        digest = _key(memory_id).digest
        new = NewMessages.of(store._id(memory_id), "", memory_id, digest, messages, {}, None, WINDOW)
        database, appender = store._database, store._appender
        mode = database._statements if appender.is_atomic else database._transaction
        database._run(mode, lambda connection: appender.append(connection, new))
