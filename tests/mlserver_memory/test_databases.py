"""What the databases themselves say: how much they read for a turn, how often they were asked, and in which schema."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.pool import Pool
from sqlalchemy.schema import CreateSchema

from databases import SQL_KINDS, execute, mariadb, postgres, sql_url
from mlserver_chat import Window
from mlserver_memory.conformance.tools import say, system, texts, user
from mlserver_memory.sql import SqlStore

LONG, SHORT, SIZE = 6000, 200, 50


@contextmanager
def reading(kind: str, url: str) -> Iterator[list[int]]:
    """The list it gives has in the end what the block took: hundreds of instructions of SQLite's machine, or rows that
    the server has read."""
    cost: list[int] = []
    if kind != "sqlite":
        before = _rows_read(kind, url)
        yield cost
        cost.append(_rows_read(kind, url) - before)
        return
    steps: list[int] = []

    def connected(connection: Any, _: object) -> None:
        connection.set_progress_handler(lambda: steps.append(1), 100)

    event.listen(Pool, "connect", connected)
    yield cost
    event.remove(Pool, "connect", connected)
    cost.append(len(steps))


def _rows_read(kind: str, url: str) -> int:
    engine = create_engine(url)
    statement = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables"
    if kind == "mariadb":
        statement = "SHOW GLOBAL STATUS LIKE 'Handler_read_%'"
    with engine.connect() as connection:
        rows = connection.execute(text(statement)).all()
    engine.dispose()
    return sum(int(row[-1]) for row in rows)


def analyze(kind: str, url: str) -> None:
    """What the server does by itself once in a while: count what the tables hold. Then a plan may well read all of them
    where one conversation has most of the messages."""
    engine = create_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text("ANALYZE TABLE memory_messages, memory_conversations" if kind == "mariadb" else "ANALYZE")
        )
    engine.dispose()


async def turn(url: str, memory_id: str) -> Window:
    """An append, its replay and a read, by a store that ends its connections: then their statistics are in."""
    store = SqlStore(url)
    await say(store, memory_id, user("one more"), size=SIZE, identity="r")
    await say(store, memory_id, user("one more"), size=SIZE, identity="r")
    window = await store.window(memory_id, SIZE)
    await store.aclose()
    return window


@pytest.mark.parametrize("kind", SQL_KINDS)
async def test_a_turn_reads_its_window_and_not_the_conversation(kind: str, tmp_path: Path) -> None:
    url = sql_url(kind, f"reads_{kind}", tmp_path)
    store = SqlStore(url)
    for memory_id, length in (("long", LONG), ("short", SHORT)):
        for start in range(0, length, 100):
            new = [user(f"message {number}") for number in range(start, start + 100)]
            await say(store, memory_id, system("be brief"), *new[1:], size=1)
    await store.aclose()
    analyze(kind, url)
    # A server counts what a connection did when that is gone, which on a busy machine takes a moment.
    await asyncio.sleep(1)
    costs: list[int] = []
    for memory_id in ("short", "long"):
        with reading(kind, url) as cost:
            window = await turn(url, memory_id)
        assert len(window.messages) == SIZE
        costs += cost
    short, long = costs
    assert 0 < long < short * 1.2 + SIZE


def asked_of_postgres() -> int:
    """Statements that clients have sent, as far as the server was told to log them."""
    log = (postgres().folder / "server.log").read_text(encoding="utf-8", errors="replace")
    return len(re.findall(r"LOG:  (?:statement|execute)", log))


def asked_of_mariadb() -> int:
    server = pymysql.connect(host="127.0.0.1", port=mariadb().port, user="root")
    with server, server.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
        return int(cursor.fetchall()[0][1])


@pytest.mark.parametrize(
    ("kind", "asked", "append", "read"),
    [("psycopg", asked_of_postgres, 2, 1), ("pg8000", asked_of_postgres, 2, 1), ("mariadb", asked_of_mariadb, 6, 2)],
)
async def test_a_turn_asks_the_database_no_more_often_than_it_needs_to(
    kind: str, asked: Callable[[], int], append: int, read: int, tmp_path: Path
) -> None:
    database = f"asked_{kind}"
    url = sql_url(kind, database, tmp_path)
    if kind != "mariadb":
        execute("postgres", postgres().port, f"ALTER DATABASE {database} SET log_statement = 'all'")
    store = SqlStore(url)
    await say(store, "a", *(user(str(number)) for number in range(60)))
    asking = -asked() + asked()

    async def asked_for(work: Callable[[], Awaitable[Window]]) -> int:
        before = asked()
        for _ in range(10):
            await work()
        return asked() - before - asking

    assert 10 <= await asked_for(lambda: say(store, "a", user("x"), size=SIZE)) <= 10 * append
    assert 10 <= await asked_for(lambda: store.window("a", SIZE)) <= 10 * read
    await store.aclose()


async def test_sqlite_syncs_each_commit_to_the_disk(tmp_path: Path) -> None:
    found: list[tuple[object, ...]] = []

    def checked_out(connection: Any, *_: object) -> None:
        pragmas = ("PRAGMA synchronous", "PRAGMA journal_mode")
        found.append(tuple(connection.execute(pragma).fetchone()[0] for pragma in pragmas))

    event.listen(Pool, "checkout", checked_out)
    store = SqlStore(sql_url("sqlite", "synced", tmp_path))
    await asyncio.gather(*(say(store, str(number), user("x")) for number in range(20)))
    await asyncio.gather(*(store.window(str(number), 1) for number in range(20)))
    await store.aclose()
    event.remove(Pool, "checkout", checked_out)
    # 2 is FULL.
    assert set(found) == {(2, "wal")}


@pytest.mark.parametrize("kind", ["pg8000", "psycopg"])
async def test_any_schema_is_only_a_name(kind: str, tmp_path: Path) -> None:
    database, schema = f"schema_{kind}", 'x"; DROP TABLE "y`z\\\'. :a $1 ? %s {}'
    url = sql_url(kind, database, tmp_path)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(CreateSchema(schema))
    plain, hostile = SqlStore(url), SqlStore(url, schema=schema)
    await say(plain, "a", user("plain"))
    await say(hostile, "a", user("hostile"), identity="r")
    await say(hostile, "a", user("hostile"), identity="r")
    await say(hostile, "a", user("and"), user("more"))
    assert await hostile.prune(max_messages=2) == 1
    assert texts(await hostile.read("a")) == ["and", "more"]
    assert texts(await plain.read("a")) == ["plain"]
    assert inspect(engine).get_table_names(schema=schema) == inspect(engine).get_table_names() != []
    assert await hostile.delete("a") == 2
    engine.dispose()
    await plain.aclose()
    await hostile.aclose()
