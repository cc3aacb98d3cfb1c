"""The threads of a store: what was closed says so, and a thread that could not start is not missed."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from databases import sql_url
from mlserver_chat import NotReachable
from mlserver_memory.conformance.tools import say, texts, user
from mlserver_memory.sql import SqlStore
from mlserver_memory.threads import Threads


async def test_work_goes_to_the_thread_that_worked_last() -> None:
    threads = Threads(5, "test")
    await asyncio.gather(*(threads.run(time.sleep, 0.02) for _ in range(5)))
    assert len({await threads.run(threading.get_ident) for _ in range(20)}) == 1
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(threads.run(next, iter(())), 10)
    await threads.aclose()


@pytest.mark.parametrize("kind", ["sqlite", "psycopg"])
async def test_a_store_that_was_closed_says_so_each_time(kind: str, tmp_path: Path) -> None:
    url = sql_url(kind, f"closed_{kind}", tmp_path)
    store, other = SqlStore(url), SqlStore(url)
    await say(store, "a", user("1"))
    await store.aclose()
    await store.aclose()
    for _ in range(2):
        with pytest.raises(NotReachable, match="closed"):
            await asyncio.wait_for(say(store, "a", user("2")), 10)
        with pytest.raises(NotReachable, match="closed"):
            await asyncio.wait_for(store.window("a", 1), 10)
    assert texts(await say(other, "a", user("2"))) == ["1", "2"]
    await other.aclose()


@pytest.mark.parametrize("kind", ["sqlite", "psycopg"])
async def test_a_thread_that_can_not_start_is_tried_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlStore(sql_url(kind, f"threads_{kind}", tmp_path), {"pool_size": 1, "max_overflow": 0})

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="start new thread"):
                await asyncio.wait_for(say(store, "a", user("1")), 10)
    assert texts(await asyncio.wait_for(say(store, "a", user("2")), 10)) == ["2"]
    await store.aclose()
