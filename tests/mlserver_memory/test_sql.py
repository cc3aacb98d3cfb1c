"""The SQL store's own promises, on real servers: schema, names, and nobody else's statements."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event, inspect, text

from databases import SQL_KINDS, execute, postgres, sql_url
from mlserver_chat import InvalidInput, NotReachable
from mlserver_chat.requests.identity import hashed
from mlserver_memory.conformance.tools import say, texts, user
from mlserver_memory.sql import SqlStore, migrations
from mlserver_memory.sql import store as sql_store
from mlserver_memory.sql.schema import Tables, make_tables

STARTER = """
import asyncio, sys
from mlserver_chat.requests.identity import hashed
from mlserver_memory.conformance.tools import say, user
from mlserver_memory.sql import SqlStore

async def main(url, name):
    store = SqlStore(url)
    await store.open()
    await say(store, "a", user(name))
    await store.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", SQL_KINDS)
async def test_several_replicas_may_start_at_once_on_an_empty_database(kind: str, tmp_path: Path) -> None:
    url = sql_url(kind, f"starting_{kind}", tmp_path)
    stores = [SqlStore(url) for _ in range(6)]
    await asyncio.gather(*(say(store, "a", user(str(number))) for number, store in enumerate(stores)))
    assert sorted(texts(await stores[0].read("a"))) == ["0", "1", "2", "3", "4", "5"]
    for store in stores:
        await store.aclose()


def test_several_processes_may_start_at_once_on_one_new_sqlite_file(tmp_path: Path) -> None:
    url = sql_url("sqlite", "starting", tmp_path)
    command = [sys.executable, "-c", STARTER, url]
    processes = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE, text=True) for n in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


@pytest.mark.parametrize("kind", SQL_KINDS)
async def test_an_older_schema_is_upgraded_in_place_with_its_data(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sql_url(kind, f"upgraded_{kind}", tmp_path)
    old = SqlStore(url)
    await say(old, "a", user("kept"))
    await old.aclose()
    steps = 0

    def add_column(connection: Connection, tables: Tables) -> None:
        nonlocal steps
        steps += 1
        connection.execute(text(f"ALTER TABLE {tables.messages.name} ADD COLUMN mood VARCHAR(10)"))

    released = migrations.MIGRATIONS
    monkeypatch.setattr(migrations, "MIGRATIONS", (*released, add_column))
    stores = [SqlStore(url) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    assert steps == 1
    assert texts(await say(stores[0], "a", user("new"))) == ["kept", "new"]
    engine = create_engine(url)
    assert "mood" in [column["name"] for column in inspect(engine).get_columns("memory_messages")]
    engine.dispose()
    # The release before, rolled back to, says so and doesn't touch what it can't know.
    monkeypatch.setattr(migrations, "MIGRATIONS", released)
    older = SqlStore(url)
    with pytest.raises(NotReachable, match="schema version 4; this release supports schema versions up to 3"):
        await older.open()
    for store in (*stores, older):
        await store.aclose()


@pytest.mark.parametrize("kind", SQL_KINDS)
async def test_a_store_of_the_first_schema_is_upgraded_with_its_conversations(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sql_url(kind, f"first_schema_{kind}", tmp_path)
    released, tables = migrations.MIGRATIONS, make_tables("memory_", None)
    monkeypatch.setattr(migrations, "MIGRATIONS", released[:1])
    engine = create_engine(url)
    with engine.connect() as connection:
        migrations.migrate(tables, connection)
        row = {"id": hashed("a"), "namespace_id": hashed(""), "memory_id": "a", "oldest": 1.0, "updated": 1.0}
        connection.execute(tables.conversations.insert(), row | {"last": 1, "system": 0, "messages": 1})
        message = {"conversation": hashed("a"), "sequence": 1, "record": user("kept").to_history(), "created": 1.0}
        connection.execute(tables.messages.insert(), message)
        connection.commit()
    monkeypatch.setattr(migrations, "MIGRATIONS", released)
    stores = [SqlStore(url) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    assert await stores[0].schema() == (3, 3)
    assert texts(await say(stores[0], "a", user("new"))) == ["kept", "new"]
    engine.dispose()
    for store in stores:
        await store.aclose()


@pytest.mark.parametrize("kind", ["pg8000", "psycopg"])
async def test_an_append_that_waited_for_the_conversation_answers_with_what_it_waited_for(
    kind: str, tmp_path: Path
) -> None:
    url = sql_url(kind, f"waited_{kind}", tmp_path)
    store, engine = SqlStore(url), create_engine(url)
    await say(store, "a", user("1"), user("2"))
    longer = "UPDATE memory_messages SET sequence = 3 WHERE sequence = 2; UPDATE memory_conversations SET last = 3"
    # A conversation of the same length under the same id, all of it another.
    renewed = (
        "CREATE TEMP TABLE row AS SELECT * FROM memory_conversations; DELETE FROM memory_conversations;"
        "UPDATE row SET oldest = oldest + 1; INSERT INTO memory_conversations SELECT * FROM row;"
        "UPDATE memory_messages SET record = replace(record, '1', 'new')"
    )
    for statements, expected in ((longer, ["1", "2", "mine"]), (renewed, ["new", "2", "mine", "mine"])):
        with engine.begin() as connection:
            for statement in statements.split(";"):
                connection.execute(text(statement))
            append = asyncio.create_task(say(store, "a", user("mine")))
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            async with asyncio.timeout(10):
                while not connection.scalar(waiting):
                    await asyncio.sleep(0.01)
            assert not append.done()
        assert texts(await append) == expected
    engine.dispose()
    await store.aclose()


@pytest.mark.parametrize("kind", ["pg8000", "psycopg"])
async def test_the_databases_own_isolation_makes_no_append_fail(kind: str, tmp_path: Path) -> None:
    database = f"isolated_{kind}"
    url = sql_url(kind, database, tmp_path)
    default = f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'"
    execute("postgres", postgres().port, default)
    store = SqlStore(url)
    windows = await asyncio.gather(*(say(store, "a", user(str(number)), size=50) for number in range(40)))
    assert sorted(len(window.messages) for window in windows) == list(range(1, 41))
    await store.aclose()


@pytest.mark.parametrize("kind", ["pg8000", "psycopg"])
async def test_what_postgresql_can_not_hold_is_bad_input_by_any_driver(kind: str, tmp_path: Path) -> None:
    store = SqlStore(sql_url(kind, f"unheld_{kind}", tmp_path))
    for memory_id in ("a\0b", "x" * 600):
        with pytest.raises(InvalidInput, match="can't hold this text"):
            await say(store, memory_id, user("x"))
    assert (await store.stats()).messages == 0
    await store.aclose()


async def test_what_the_database_refuses_costs_no_connection(tmp_path: Path) -> None:
    store, made = SqlStore(sql_url("psycopg", "refused", tmp_path)), list[object]()
    await say(store, "a", user("1"))
    event.listen(store._database._engine, "connect", lambda *connection: made.append(connection))
    for _ in range(5):
        with pytest.raises(InvalidInput):
            await say(store, "a\0b", user("1"))
    assert not made
    await store.aclose()


HOSTILE = ('x"; DROP TABLE memory_messages; --', "x`y'z", "select ", "Ünï_", "a.b_", "x]y_", "%s{}:$$_")


@pytest.mark.parametrize("prefix", HOSTILE)
@pytest.mark.parametrize("kind", ["sqlite", "psycopg", "mariadb"])
async def test_any_table_prefix_is_only_a_name(kind: str, prefix: str, tmp_path: Path) -> None:
    database = f"prefix_{kind}_{HOSTILE.index(prefix)}"
    url = sql_url(kind, database, tmp_path)
    plain, hostile = SqlStore(url), SqlStore(url, prefix=prefix)
    await say(plain, "a", user("plain"))
    await say(hostile, "a", user("hostile"))
    await hostile.prune(max_messages=1)
    assert texts(await plain.read("a")) == ["plain"]
    assert texts(await hostile.read("a")) == ["hostile"]
    await plain.aclose()
    await hostile.aclose()


@pytest.mark.parametrize("kind", ["psycopg", "pg8000"])
async def test_a_schema_is_the_one_with_that_very_name(kind: str, tmp_path: Path) -> None:
    url = sql_url(kind, f"schemas_{kind}", tmp_path)
    engine, names = create_engine(url), ("chat", "Chat", "order", "x:y$$")
    with engine.begin() as connection:
        for name in names:
            connection.exec_driver_sql(f'CREATE SCHEMA "{name}"')
    stores = {name: SqlStore(url, schema=name) for name in names}
    for _ in range(2):
        for name, store in stores.items():
            await say(store, "a", user(name))
    for name, store in stores.items():
        assert texts(await say(store, "a", user("last"))) == [name, name, "last"]
        assert texts(await store.read("a")) == [name, name, "last"]
        await store.aclose()
    engine.dispose()


@pytest.mark.parametrize("kind", SQL_KINDS)
async def test_two_models_over_one_database_see_one_conversation(kind: str, tmp_path: Path) -> None:
    url = sql_url(kind, f"shared_{kind}", tmp_path)
    first, second = SqlStore(url), SqlStore(url)
    for number in range(6):
        await say(first if number % 2 else second, "a", user(str(number)))
    assert await first.window("a", 10) == await second.window("a", 10)
    assert texts(await first.window("a", 10)) == [str(number) for number in range(6)]
    await first.aclose()
    await second.aclose()


async def test_neither_values_nor_passwords_reach_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = sql_url("psycopg", "logged", tmp_path).replace("postgres@", "postgres:hunter2@")
    store = SqlStore(url)
    await say(store, "secret-id", user("secret-text"))
    execute("postgres", postgres().port, "ALTER DATABASE logged SET default_transaction_read_only = on")
    execute(
        "postgres",
        postgres().port,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'logged'",
    )
    with pytest.raises((NotReachable, InvalidInput, Exception)) as error:
        await say(store, "secret-id", user("secret-text"))
    shown = caplog.text + str(error.value) + repr(error.value) + repr(store) + (await store.stats()).detail
    for secret in ("hunter2", "secret-id", "secret-text"):
        assert secret not in shown
    await store.aclose()


@pytest.mark.parametrize("kind", SQL_KINDS)
async def test_many_conversations_are_listed_and_pruned_page_by_page(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_store, "_PAGE", 3)
    store = SqlStore(sql_url(kind, f"pages_{kind}", tmp_path))
    for number in range(10):
        await say(store, str(number), user("a"), user("b"))
    listed = [info.memory_id async for info in store.conversations()]
    assert sorted(listed) == [str(number) for number in range(10)]
    assert await store.prune(max_messages=1) == 10
    assert (await store.stats()).messages == 10
    await store.aclose()
