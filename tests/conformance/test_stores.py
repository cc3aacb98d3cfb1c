"""Every store keeps every promise of the seam, and what the kit can't ask: of clocks, and of waiting."""

import asyncio
import fcntl
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from databases import SQL_KINDS, sql_url
from mlserver_chat import MemoryStore
from mlserver_memory import InMemoryStore
from mlserver_memory.conformance import SPECS, Spec
from mlserver_memory.conformance.tools import fresh_id, say, texts, user
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.naming import conversation_id
from mlserver_memory.sql import SqlStore


@pytest.fixture(scope="module", params=["memory", "filesys", *SQL_KINDS])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Kind of store, and where it is: a folder or a URL."""
    folder = tmp_path_factory.mktemp("store")
    kind = request.param
    return kind, sql_url(kind, f"conformance_{kind}", folder) if kind in SQL_KINDS else str(folder)


@pytest.fixture
async def store(place: tuple[str, str]) -> AsyncIterator[MemoryStore]:
    """A new store over the same place for each spec."""
    kind, where = place
    if kind == "memory":
        store: MemoryStore = InMemoryStore()
    elif kind == "filesys":
        store = FileSysStore(Path(where))
    else:
        store = SqlStore(where)
    yield store
    await store.aclose()


@pytest.mark.parametrize("spec", SPECS, ids=str)
async def test_the_store_keeps_its_promise(spec: Spec, store: MemoryStore) -> None:
    await spec.run(store)


async def test_order_is_the_store_s_and_no_clock_s(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = itertools.count(time.time(), -60)
    monkeypatch.setattr(time, "time", lambda: next(backwards))
    memory_id = fresh_id()
    for number in range(5):
        window = await say(store, memory_id, user(str(number)))
    assert texts(window) == texts(await store.read(memory_id)) == list("01234")
    assert window.messages[-1].created < window.messages[0].created


@pytest.mark.parametrize("place", ["filesys", *SQL_KINDS], indirect=True)
async def test_an_append_is_known_for_a_week_after_its_messages_are_gone(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_id, began = fresh_id(), time.time()
    await say(store, memory_id, user("a"), identity="r1")
    await store.delete(memory_id)
    for days, known in ((6, True), (8, False)):
        monkeypatch.setattr(time, "time", lambda days=days: began + days * 86_400)
        await store.prune(older_than=began)
        window = await say(store, memory_id, user("a"), identity="r1")
        assert texts(window) == ([] if known else ["a"])


@contextmanager
def locked(place: tuple[str, str], memory_id: str) -> Iterator[None]:
    """As if another process were at work on the conversation for long."""
    kind, where = place
    if kind == "filesys":
        (path,) = Path(where).rglob(f"{conversation_id('', memory_id)}.log")
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    engine = create_engine(where)
    tables = [name for name in inspect(engine).get_table_names() if name.startswith("memory_")]
    statements = {
        "sqlite": "BEGIN IMMEDIATE",
        "mariadb": f"LOCK TABLES {', '.join(f'{name} WRITE' for name in tables)}",
    }
    with engine.connect() as connection:
        connection.exec_driver_sql(statements.get(kind, f"LOCK TABLE {', '.join(tables)}"))
        yield
        connection.invalidate()
    engine.dispose()


@pytest.mark.parametrize("place", ["filesys", *SQL_KINDS], indirect=True)
async def test_a_store_that_has_to_wait_does_not_hold_up_the_event_loop(
    store: MemoryStore, place: tuple[str, str]
) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, user("1"))
    is_locked, released = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(place, memory_id):
            is_locked.set()
            released.wait(2)

    holding = asyncio.create_task(asyncio.to_thread(hold))
    await asyncio.to_thread(is_locked.wait)
    began = time.monotonic()
    tasks = [asyncio.create_task(say(store, memory_id, user("2")))]
    tasks += [asyncio.create_task(store.window(memory_id, 1)) for _ in range(2)]
    await asyncio.sleep(0.2)
    assert time.monotonic() - began < 1
    assert not tasks[0].done()
    released.set()
    await holding
    assert texts(await tasks[0]) == ["1", "2"]
    await asyncio.gather(*tasks)
