"""Replicas of the previous release append while replicas of this one migrate the database and append."""

import asyncio
from collections import defaultdict
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, inspect, text

from databases import postgres, sql_url
from mlserver_chat.requests.identity import hashed
from mlserver_memory.conformance.tools import say, user
from mlserver_memory.sql import SqlStore
from mlserver_memory.sql.schema import make_tables

FUNCTION = Path(__file__).parent / "released" / "memory_append.sql"
APPENDS = 60


def append_as_the_previous_release(database: str, texts: list[str]) -> None:
    """Append to conversation "a" as the previous release does."""
    url = f"host=127.0.0.1 port={postgres().port} user=postgres dbname={database}"
    call = "SELECT * FROM memory_append(%s, %s, %s, NULL, 'a', 0, 1.0, %s, NULL, NULL, 50, NULL, NULL)"
    with psycopg.connect(url, autocommit=True) as connection:
        for each in texts:
            values = (hashed("a"), hashed(each), hashed(""), user(each).to_history())
            connection.execute(call, values).fetchall()


@pytest.mark.parametrize("kind", ["psycopg", "pg8000"])
async def test_both_releases_append_during_a_rolling_update(kind: str, tmp_path: Path) -> None:
    database = f"rolling_{kind}"
    url, tables = sql_url(kind, database, tmp_path), make_tables("memory_", None)
    engine = create_engine(url)
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        connection.execute(tables.version.insert().values(name="schema", version=2))
        connection.exec_driver_sql(FUNCTION.read_text(encoding="utf-8"))
    old = [[f"old{replica} {n}" for n in range(APPENDS)] for replica in range(2)]
    running = [asyncio.create_task(asyncio.to_thread(append_as_the_previous_release, database, each)) for each in old]
    store = SqlStore(url)
    new = [f"new {n}" for n in range(APPENDS)]
    for each in new:
        window = await say(store, "a", user(each), size=50)
        sequences = [message.sequence for message in window.messages]
        assert sequences == list(range(sequences[0], sequences[-1] + 1))
        assert window.messages[-1].message.text == each
    await asyncio.gather(*running)
    assert await store.schema() == (3, 3)
    stored = await store.read("a")
    assert [message.sequence for message in stored] == list(range(1, 3 * APPENDS + 1))
    said: dict[str, list[str]] = defaultdict(list)
    for message in stored:
        said[message.message.text.split()[0]].append(message.message.text)
    assert said == {"new": new, "old0": old[0], "old1": old[1]}
    append_as_the_previous_release(database, ["after the migration"])
    assert (await store.window("a", 1)).messages[0].message.text == "after the migration"
    engine.dispose()
    await store.aclose()


async def test_a_new_database_has_only_tables_and_indexes(tmp_path: Path) -> None:
    url = sql_url("psycopg", "only_tables", tmp_path)
    store, engine = SqlStore(url), create_engine(url)
    await say(store, "a", user("1"))
    with engine.connect() as connection:
        functions = text("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        assert connection.scalar(functions) == 0
        assert inspect(connection).get_view_names() == []
    engine.dispose()
    await store.aclose()
