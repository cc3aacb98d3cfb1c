"""What a store does while its database is gone, busy or empty: it says so, and goes on when it is back."""

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from databases import SQL_KINDS, execute, mariadb, postgres, sql_url
from mlserver_chat import MemoryStore, NotReachable
from mlserver_memory.conformance.tools import fresh_id, say, texts, user
from mlserver_memory.sql import SqlStore
from support import free_ports

SERVERS = SQL_KINDS[1:]


# pg8000 leaves the sockets of broken connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", SERVERS)
async def test_a_restarted_database_is_found_again_and_loses_nothing(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqlStore(sql_url(kind, f"restarted_{kind}", tmp_path))
    server = mariadb() if kind == "mariadb" else postgres()
    await asyncio.gather(*(say(store, "a", user(str(n)), identity=str(n), size=1) for n in range(20)))
    server.stop()
    try:
        with pytest.raises(NotReachable, match="the memory store can't be reached"):
            await say(store, "a", user("down"), identity="down")
        began = time.monotonic()
        with pytest.raises(NotReachable):
            await store.window("a", 1)
        assert time.monotonic() - began < 0.1, "a database that is down is left alone for a moment"
        assert not (await store.stats()).reachable
    finally:
        server.start()
    for _ in range(200):
        try:
            await say(store, "a", user("down"), identity="down", size=1)
            break
        except NotReachable:
            await asyncio.sleep(0.1)
    stored = texts(await store.read("a"))
    assert (sorted(stored[:20], key=int), stored[20:]) == ([str(n) for n in range(20)], ["down"])
    assert (await store.stats()).reachable
    messages = [record.getMessage() for record in caplog.records if "reached" in record.getMessage()]
    assert ["can't" in message for message in messages] == [True, False], "a log line for each change, and no more"
    await store.aclose()


async def test_a_lock_is_waited_for_once(tmp_path: Path) -> None:
    store = SqlStore(sql_url("sqlite", "locked", tmp_path), {"connect_args": {"timeout": 1}})
    await say(store, "a", user("1"))
    other = create_engine(sql_url("sqlite", "locked", tmp_path))
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(NotReachable, match="too busy"):
            await say(store, "a", user("2"))
        assert time.monotonic() - began < 1.8
        assert texts(await store.window("a", 5)) == ["1"]
    other.dispose()
    await store.aclose()


def kill_connections(kind: str, database: str) -> None:
    if kind != "mariadb":
        terminate = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        execute("postgres", postgres().port, terminate)
        return
    killing = f"SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE db = '{database}'"
    engine = create_engine(f"mysql+pymysql://root@127.0.0.1:{mariadb().port}/mysql")
    with engine.connect() as connection:
        for (kill,) in connection.execute(text(killing)).all():
            connection.execute(text(kill))
    engine.dispose()


# pg8000 leaves the sockets of broken connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", SERVERS)
async def test_connections_killed_while_idle_are_replaced_unnoticed(kind: str, tmp_path: Path) -> None:
    database = f"idle_{kind}"
    store = SqlStore(sql_url(kind, database, tmp_path))
    await asyncio.gather(*(say(store, fresh_id(), user("x")) for _ in range(10)))
    kill_connections(kind, database)
    windows = await asyncio.gather(*(say(store, "a", user(str(n)), size=50) for n in range(10)))
    assert sorted(len(window.messages) for window in windows) == list(range(1, 11))
    for act, outcome in (
        (lambda: store.prune(max_messages=5, memory_id="a"), 5),
        (lambda: store.delete("a"), 5),
        (lambda: store.read("a"), []),
    ):
        kill_connections(kind, database)
        assert await act() == outcome
    await store.aclose()


@pytest.mark.parametrize("kind", SERVERS)
async def test_many_conversations_may_begin_at_once(kind: str, tmp_path: Path) -> None:
    store = SqlStore(sql_url(kind, f"begin_{kind}", tmp_path))
    await asyncio.gather(*(say(store, fresh_id(), user("x")) for _ in range(60)))
    assert (await store.stats()).conversations == 60
    await store.aclose()


async def test_a_database_that_is_down_at_first_is_used_once_it_is_there(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    stores: list[MemoryStore] = [
        SqlStore(f"{kind}://u:hunter2@127.0.0.1:{port}/db")
        for kind in ("postgresql+pg8000", "postgresql+psycopg", "mysql+pymysql")
    ]
    for store in stores:
        with pytest.raises(NotReachable):
            await store.open()
        await store.aclose()


IMPATIENT = {
    "mariadb": "?init_command=SET innodb_lock_wait_timeout%3D1",
    "psycopg": "?options=-c lock_timeout%3D1000",
    "pg8000": "",
}


@pytest.mark.parametrize("kind", IMPATIENT)
async def test_a_lock_that_a_server_waited_for_in_vain_is_no_lost_database(kind: str, tmp_path: Path) -> None:
    url = sql_url(kind, f"impatient_{kind}", tmp_path)
    engine = create_engine(url)
    if kind == "pg8000":
        with engine.begin() as connection:
            connection.execute(text("ALTER DATABASE impatient_pg8000 SET lock_timeout = 1000"))
    store = SqlStore(url + IMPATIENT[kind])
    for memory_id in "ab":
        await say(store, memory_id, user("1"))
    with engine.begin() as connection:
        connection.execute(text("SELECT * FROM memory_conversations WHERE memory_id = 'a' FOR UPDATE"))
        began = time.monotonic()
        with pytest.raises(NotReachable, match="too busy"):
            await say(store, "a", user("2"))
        assert time.monotonic() - began < 1.8
        assert texts(await store.window("b", 5)) == ["1"]
    assert texts(await say(store, "a", user("3"))) == ["1", "3"]
    engine.dispose()
    await store.aclose()


@pytest.mark.parametrize("kind", SQL_KINDS)
async def test_tables_that_are_gone_are_made_anew(kind: str, tmp_path: Path) -> None:
    url = sql_url(kind, f"without_tables_{kind}", tmp_path)
    store, engine = SqlStore(url), create_engine(url)
    for act in (lambda: say(store, "a", user("new")), lambda: store.window("a", 5), lambda: store.delete("a")):
        await say(store, "a", user("old"))
        with engine.begin() as connection:
            if kind in ("pg8000", "psycopg"):
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text("CREATE SCHEMA public"))
            for table in inspect(connection).get_table_names():
                connection.execute(text(f"DROP TABLE {table}"))
        await act()
        assert "old" not in texts(await store.read("a"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE memory_messages"))
    assert texts(await say(store, "b", user("newer"))) == ["newer"]
    engine.dispose()
    await store.aclose()
