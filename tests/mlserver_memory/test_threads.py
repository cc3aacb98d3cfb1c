"""The threads of a store: what was closed says so, and a thread that could not start is not missed."""

import asyncio
import threading
from pathlib import Path

import pytest

from databases import sql_url
from mlserver_chat import NotReachable
from mlserver_memory.conformance.tools import say, texts, user
from mlserver_memory.sql import SqlStore
from mlserver_memory.threads import Threads


async def test_cancelled_callers_leave_their_work_to_finish() -> None:
    threads, go, finished = Threads(1, "test"), threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        finished.set()

    running = [asyncio.create_task(threads.run(work)) for _ in range(2)]
    await asyncio.sleep(0.05)
    for each in running:
        each.cancel()
    with pytest.raises(ZeroDivisionError):
        go.set()
        await threads.run(lambda: 1 // 0)
    await threads.aclose()
    assert finished.is_set()


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
    assert texts(await asyncio.wait_for(say(store, "a", user("2")), 10))[-1] == "2"
    await store.aclose()
