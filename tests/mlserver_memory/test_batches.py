"""Appends to conversations whose end is known are one statement on SQLite, and nothing changes but their speed."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from databases import statements_of
from mlserver_chat import AppendKey, InternalError, Message, StoredMessage, Window
from mlserver_memory.conformance.tools import say, system, texts, user
from mlserver_memory.sql import SqlStore, sqlite
from mlserver_memory.sql.batches import OnWriter

IDS = [f"conversation {number}" for number in range(150)]


async def at_once(path: Path, *appends: tuple[SqlStore, str, Message]) -> list[Window]:
    """Appends that come while the file is busy, and so are committed together."""
    with sqlite.file_locks[str(path)]:
        waiting = [asyncio.create_task(say(store, memory_id, message)) for store, memory_id, message in appends]
        await asyncio.sleep(0.1)
    return await asyncio.gather(*waiting)


def own(statements: Sequence[str]) -> list[str]:
    """Without what SQLite executes for a function, and again for each step of a trigger."""
    return list(dict.fromkeys(statement for statement in statements if not statement.startswith(("--", "PRAGMA"))))


async def test_one_append_is_one_statement(store: SqlStore) -> None:
    await say(store, "a", user("1"))
    statements = statements_of(store)
    for number in "23":
        await say(store, "a", user(number))
    # Once, the view and its trigger.
    assert [statement.split()[0] for statement in own(statements)] == ["CREATE", "CREATE", "INSERT", "INSERT"]
    assert texts(await store.window("a", 9)) == ["1", "2", "3"]


async def test_a_group_is_one_statement_whatever_its_size(store: SqlStore, path: Path) -> None:
    await asyncio.gather(*(say(store, memory_id, user("1")) for memory_id in IDS))
    statements = statements_of(store)
    await say(store, IDS[0], user("2"))
    for count in (1, 2, 3, 7, 33, 90):
        statements.clear()
        windows = await at_once(path, *((store, memory_id, user(f"of {count}")) for memory_id in IDS[:count]))
        assert all(texts(window)[-1] == f"of {count}" for window in windows)
        # The first may have begun alone before the others came.
        assert 1 <= len(own(statements)) <= 2
    for memory_id in IDS:
        stored = await store.read(memory_id)
        assert [each.sequence for each in stored] == list(range(1, len(stored) + 1))
        assert stored == list((await store.window(memory_id, 50)).messages)


async def test_known_and_new_conversations_and_several_messages_mix(store: SqlStore, path: Path) -> None:
    await say(store, "known", user("1"))
    both = [user("3"), user("4")]
    with sqlite.file_locks[str(path)]:
        waiting = [
            asyncio.create_task(say(store, *each))
            for each in (("known", user("2")), ("new", user("1")), ("known", *both), ("new", user("2")))
        ]
        await asyncio.sleep(0.1)
    windows = await asyncio.gather(*waiting)
    assert [texts(window) for window in windows] == [["1", "2"], ["1"], ["1", "2", "3", "4"], ["1", "2"]]
    for memory_id, window in (("known", windows[2]), ("new", windows[3])):
        assert await store.window(memory_id, 50) == window


async def test_a_larger_window_than_is_known_is_read_after_the_append(store: SqlStore) -> None:
    for number in range(9):
        await say(store, "a", user(str(number)), size=2)
    assert texts(await say(store, "a", user("9"), size=20), 20) == [str(number) for number in range(10)]


async def test_stores_with_other_tables_share_the_writer_and_nothing_else(path: Path) -> None:
    names = ("memory_", 'we"ird % :x ')
    stores = [SqlStore(f"sqlite:///{path}", prefix=name) for name in names]
    for each in stores:
        await say(each, "a", user("1"))
    pairs = [(each, "a", user(f"{number}")) for number in range(2, 12) for each in stores]
    await at_once(path, *pairs)
    for each in stores:
        assert texts(await each.window("a", 50), 50) == [str(number) for number in range(1, 12)]
        await each.aclose()


async def test_a_replay_among_many_is_stored_once_and_spoils_nobody_else_s(store: SqlStore, path: Path) -> None:
    key = AppendKey("a", "request", "model", "content")
    first = await store.append(key, [user("1")], 50)
    for memory_id in IDS[:10]:
        await say(store, memory_id, user("1"))
    with sqlite.file_locks[str(path)]:
        waiting = [asyncio.create_task(say(store, memory_id, user("2"))) for memory_id in IDS[:10]]
        replays = [asyncio.create_task(store.append(key, [user("1")], 50)) for _ in range(2)]
        await asyncio.sleep(0.1)
    assert [texts(window) for window in await asyncio.gather(*waiting)] == [["1", "2"]] * 10
    assert await asyncio.gather(*replays) == [first, first]
    assert texts(await store.window("a", 9)) == ["1"]


async def test_the_newest_system_message_is_remembered(store: SqlStore) -> None:
    await say(store, "a", user("0"), size=2)
    for message in (system("old"), system("new"), *map(user, "12345")):
        window = await say(store, "a", message, size=2)
        assert window == await store.window("a", 2)
    assert window.system is not None
    assert window.system.message.text == "new"


async def test_provenance_and_time_are_kept(store: SqlStore) -> None:
    await say(store, "a", user("1"))
    key = AppendKey("a", "i", "m", "c")
    window = await store.append(key, [user("2")], 50, {"prompt": "p"}, created=7.5)
    assert window.messages[-1] == StoredMessage(2, user("2").to_history(), 7.5, {"prompt": "p"})
    assert await store.read("a", after=1) == [window.messages[-1]]


CHANGES = {
    "another append": ("await say(store, 'a', user('other'))", ["1", "2", "3", "other"]),
    "a deletion": ("await store.delete('a')", []),
    "a pruning": ("await store.prune(max_messages=1)", ["3"]),
}
OTHER_PROCESS = """
import asyncio, sys
from mlserver_memory.conformance.tools import say, user
from mlserver_memory.sql import SqlStore

async def main():
    store = SqlStore(sys.argv[1])
    {}
    await store.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "in a transaction"])
@pytest.mark.parametrize(("change", "left"), CHANGES.values(), ids=CHANGES)
async def test_what_another_process_commits_at_the_last_moment_counts(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch, change: str, left: list[str], is_alone: bool
) -> None:
    for number in "123":
        await say(store, "a", user(number))
    later = OnWriter.later

    def after_the_change(on: OnWriter, *arguments: Any) -> None:
        monkeypatch.setattr(OnWriter, "later", later)
        subprocess.run([sys.executable, "-c", OTHER_PROCESS.format(change), f"sqlite:///{path}"], check=True)
        later(on, *arguments)

    monkeypatch.setattr(OnWriter, "later", after_the_change)
    # The second of them needs a transaction.
    new = [("a", user("4"))] if is_alone else [("a", user("4")), ("b", user("1"))]
    window, *_ = await at_once(path, *((store, *each) for each in new))
    assert texts(window) == [*left, "4"]
    assert await store.window("a", 50) == window


async def test_a_view_that_went_with_its_transaction_is_made_again(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(store, "a", user("1"))
    commit = OnWriter.commit

    def fails_once(on: OnWriter) -> None:
        monkeypatch.setattr(OnWriter, "commit", commit)
        on._flush_in_transaction()
        raise ValueError("failed")

    monkeypatch.setattr(OnWriter, "commit", fails_once)
    with pytest.raises(ValueError, match="failed"):
        await say(store, "a", user("2"))
    for number in "34":
        await say(store, "a", user(number))
    assert texts(await store.window("a", 9)) == ["1", "3", "4"]
    statements = statements_of(store)
    await say(store, "a", user("5"))
    assert len(own(statements)) == 1


TRIGGERS = {
    "its own way with conflicts": "INSERT OR IGNORE INTO seen VALUES (new.conversation)",
    "a refusal that keeps what is done": "SELECT raise(FAIL, 'no') WHERE instr(new.record, 'refused')",
}


@pytest.mark.parametrize("does", TRIGGERS.values(), ids=TRIGGERS)
async def test_somebody_s_triggers_work_as_they_were_written(store: SqlStore, path: Path, does: str) -> None:
    await say(store, "a", user("1"))
    with create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(text("CREATE TABLE seen (id PRIMARY KEY)"))
        connection.execute(text(f"CREATE TRIGGER t BEFORE INSERT ON memory_messages BEGIN {does}; END"))
    await say(store, "a", user("2"))
    statements = statements_of(store)
    await at_once(path, *((store, "a", user(number)) for number in "345"))
    assert not [statement for statement in own(statements) if "temp." in statement]
    if "FAIL" in does:
        with pytest.raises(InternalError):
            await say(store, "a", user("refused"))
    stored = await store.read("a")
    assert [(each.sequence, each.message.text) for each in stored] == [(n, str(n)) for n in range(1, 6)]
    assert (await say(store, "a", user("6"))).messages[-1].sequence == 6


async def test_two_names_of_the_same_tables_are_one_store(path: Path) -> None:
    stores = [SqlStore(f"sqlite:///{path}", prefix=prefix) for prefix in ("memory_", "Memory_")]
    for each in stores:
        await each.open()
    for number in range(1, 9):
        window = await say(stores[number % 2], "a", user(str(number)))
        assert texts(window, 50) == [str(each) for each in range(1, number + 1)]
    await at_once(path, *((stores[number % 2], "a", user(str(number))) for number in range(30)))
    assert len(await stores[0].read("a")) == 38
    for each in stores:
        await each.aclose()


async def test_what_is_done_again_waits_no_longer_and_the_next_as_long(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_SHORT", -1)
    assert store._database._writer is not None
    for number in "12":
        key = AppendKey("a", number, "model", "content")
        window = await store.append(key, [user(number)], 50)
    statements = statements_of(store)
    # A replay: nothing is as known.
    assert await store.append(key, [user("2")], 50) == window
    assert [each for each in statements if "busy_timeout =" in each][-1] == "PRAGMA busy_timeout = 30000"
    await say(store, "a", user("3"))
    pooled = store._database._writer._pooled
    assert pooled is not None
    cursor = pooled.cursor()
    assert cursor.execute("PRAGMA busy_timeout").fetchone() == (30000,)
    # In memory: texts would be in a temporary file.
    assert cursor.execute("PRAGMA temp_store").fetchone() == (2,)
