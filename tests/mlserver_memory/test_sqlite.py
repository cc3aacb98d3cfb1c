"""SQLite's own promises: what waits is committed together, and no answer from a file that is gone."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event

from mlserver_chat import AppendKey, InvalidInput, MemoryStore, NotReachable, Window
from mlserver_memory.conformance.tools import fresh_id, say, texts, user
from mlserver_memory.sql import SqlStore
from mlserver_memory.sql.dialects import generic, sqlite
from mlserver_memory.sql.messages import NewMessages


def removed(path: Path) -> None:
    for name in (path, *path.parent.glob(f"{path.name}-*")):
        name.unlink()


async def read_anew(path: Path, memory_id: str) -> list[str]:
    """What a server started now would find."""
    other = SqlStore(f"sqlite:///{path}")
    try:
        return texts(await other.read(memory_id))
    finally:
        await other.aclose()


async def test_appends_that_wait_share_a_commit_and_are_answered_in_order(store: SqlStore, path: Path) -> None:
    await store.open()
    await say(store, "other", user("x"))
    commits: list[Connection] = []
    event.listen(store._database._engine, "commit", commits.append)
    with sqlite.file_locks[str(path)]:
        waiting = [asyncio.create_task(say(store, "a", user(str(n)), size=50)) for n in range(20)]
        await asyncio.sleep(0.1)
    windows = await asyncio.gather(*waiting)
    assert 1 <= len(commits) <= 2
    assert [texts(window, 50) for window in windows] == [[str(n) for n in range(end)] for end in range(1, 21)]
    assert await read_anew(path, "a") == [str(n) for n in range(20)]


async def test_an_append_that_fails_or_is_a_replay_spoils_nobody_else_s(store: SqlStore, path: Path) -> None:
    first = await say(store, "a", user("first"), identity="r1")
    unstorable = [user("stored with"), user("half a letter: \ud83d")]
    with sqlite.file_locks[str(path)]:
        waiting = [
            asyncio.create_task(append)
            for append in (
                say(store, "a", user("second"), identity="r2"),
                say(store, "a", user("first"), identity="r1"),
                store.append(AppendKey("a", "r3", "m", "content"), unstorable, 10),
                say(store, "a", user("third"), identity="r4"),
                say(store, "a", user("third"), identity="r4"),
            )
        ]
        await asyncio.sleep(0.1)
    second, again, refused, third, third_again = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(refused, InvalidInput)
    assert again == first
    assert third == third_again
    assert [texts(window) for window in (second, third) if not isinstance(window, BaseException)] == [
        ["first", "second"],
        ["first", "second", "third"],
    ]
    assert await read_anew(path, "a") == ["first", "second", "third"]


async def test_a_caller_that_went_away_does_not_keep_others_from_their_answer(store: SqlStore, path: Path) -> None:
    await store.open()
    with sqlite.file_locks[str(path)]:
        waiting = [asyncio.create_task(say(store, fresh_id(), user("x"))) for _ in range(5)]
        await asyncio.sleep(0.1)
        waiting[2].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [False, False, True, False, False]
    assert (await store.stats()).messages == 5


async def test_a_file_that_was_removed_is_made_anew_and_nothing_goes_to_the_old_one(
    store: SqlStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await say(store, "a", user("gone"))
    removed(path)
    assert texts(await store.window("a", 10)) == []
    assert texts(await say(store, "a", user("kept"))) == ["kept"]
    assert await read_anew(path, "a") == ["kept"]
    assert caplog.text.count("was removed or replaced") == 1


async def test_a_file_that_was_put_in_its_place_is_the_store_from_then_on(
    store: SqlStore, path: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    other: MemoryStore = SqlStore(f"sqlite:///{backup}")
    await say(other, "a", user("from the backup"))
    await other.aclose()
    await say(store, "a", user("gone"))
    removed(path)
    backup.rename(path)
    assert texts(await say(store, "a", user("kept"))) == ["from the backup", "kept"]
    assert await read_anew(path, "a") == ["from the backup", "kept"]


async def test_an_append_whose_file_goes_while_it_runs_is_done_again(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.open()
    append, to_remove = generic.Appender.append, [path]

    def removing(self: generic.Appender, connection: Connection, new: NewMessages) -> Window:
        while to_remove:
            removed(to_remove.pop())
        return append(self, connection, new)

    monkeypatch.setattr(generic.Appender, "append", removing)
    assert texts(await say(store, "a", user("kept"))) == ["kept"]
    assert await read_anew(path, "a") == ["kept"]


async def test_what_many_waited_for_in_vain_is_waited_for_once(path: Path) -> None:
    store, other = SqlStore(f"sqlite:///{path}?timeout=1"), create_engine(f"sqlite:///{path}")
    await say(store, "a", user("1"))
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        began = time.monotonic()
        answers = await asyncio.gather(*(say(store, str(n), user("2")) for n in range(10)), return_exceptions=True)
        assert all(isinstance(answer, NotReachable) for answer in answers)
        # The first was alone, the others together.
        assert time.monotonic() - began < 3
    other.dispose()
    assert texts(await say(store, "a", user("3"))) == ["1", "3"]
    await store.aclose()


async def test_close_waits_for_appends_without_blocking_other_stores(path: Path) -> None:
    store = SqlStore(f"sqlite:///{path}?timeout=2")
    await say(store, "a", user("1"))
    with sqlite.file_locks[str(path)]:
        append = asyncio.create_task(say(store, "a", user("2")))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0.05)
        elsewhere = SqlStore(f"sqlite:///{path.with_name('elsewhere.db')}")
        assert texts(await asyncio.wait_for(say(elsewhere, "a", user("1")), 5)) == ["1"]
        assert not closing.done()
    assert texts(await append) == ["1", "2"]
    await closing
    await elsewhere.aclose()


def test_a_process_that_ends_leaves_the_whole_file(path: Path) -> None:
    """MLServer ends without unloading its models."""
    script = f"""
import asyncio
from mlserver_memory.conformance.tools import say, user
from mlserver_memory.sql import SqlStore

store = SqlStore("sqlite:///{path}")

async def main():
    await store.open()
    await asyncio.gather(*(say(store, str(n), user("x")) for n in range(5)))
    await asyncio.gather(*(store.window(str(n), 5) for n in range(5)))

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name]
