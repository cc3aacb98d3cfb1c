"""The file store's own promises: damage, crashes, other processes, and reading only the tail."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlserver_chat import NotReachable
from mlserver_memory.conformance.tools import key, say, system, texts, user
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.filesys.durability import Durability
from mlserver_memory.filesys.keys import KeyCache
from mlserver_memory.filesys.records import RecordFile


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileSysStore]:
    store = FileSysStore(tmp_path)
    yield store
    await store.aclose()


def only_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.log")
    return path


async def filled(store: FileSysStore, count: int) -> None:
    for number in range(count):
        await say(store, "a", user(f"m{number}"), identity=f"r{number}")


@pytest.mark.parametrize("cut", [1, 10, 40])
async def test_a_torn_tail_is_reported_and_cut_and_nothing_else_lost(
    store: FileSysStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    await filled(store, 5)
    path = only_file(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    assert texts(await store.window("a", 10)) == ["m0", "m1", "m2", "m3"]
    assert "cut short" in caplog.text
    await say(store, "b", user("whole"))
    await say(store, "b", user("one turn,"), user("two messages"))
    (other,) = {*tmp_path.rglob("*.log")} - {path}
    with other.open("r+b") as file:
        file.truncate(other.stat().st_size - cut)
    assert texts(await store.window("b", 10)) == ["whole"]
    # The request that was never answered comes again.
    assert texts(await say(store, "a", user("m4"), identity="r4")) == ["m0", "m1", "m2", "m3", "m4"]
    assert texts(await say(store, "a", user("m5"))) == ["m0", "m1", "m2", "m3", "m4", "m5"]
    assert "cut short" in (await store.stats()).detail


async def test_a_tail_of_zeros_is_torn_too(store: FileSysStore, tmp_path: Path) -> None:
    await filled(store, 2)
    with only_file(tmp_path).open("ab") as file:
        file.write(bytes(5000))
    assert texts(await say(store, "a", user("m2"))) == ["m0", "m1", "m2"]


async def test_a_damaged_record_is_passed_over_counted_and_reported(
    store: FileSysStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(store, 4)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"m1"', b'"mX"'))
    assert texts(await store.window("a", 10)) == ["m0", "m2", "m3"]
    assert texts(await say(store, "a", user("m4"))) == ["m0", "m2", "m3", "m4"]
    assert caplog.text.count("a damaged record") == 1
    assert "a damaged record" in (await store.stats()).detail


async def test_a_conversation_with_a_damaged_first_line_is_reported_read_on_and_can_be_deleted(
    store: FileSysStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(store, 2)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"memory_id"', b'"memory_ID"'))
    assert [info async for info in store.conversations()] == []
    assert "a damaged record at byte 0" in caplog.text
    assert texts(await say(store, "a", user("m2"))) == ["m0", "m1", "m2"]
    assert await store.prune(max_messages=1) == 0
    assert await store.delete("a") == 3
    assert texts(await say(store, "a", user("new"))) == ["new"]


async def test_what_parts_lines_and_messages_may_stand_in_a_text(store: FileSysStore) -> None:
    strange = ["a\tb\nc\r\u2028d", "\t", "\\t", ""]
    await say(store, "a", *map(user, strange))
    assert texts(await say(store, "a", user("next"))) == [*strange, "next"]


async def test_messages_longer_than_a_block_are_read_whole(store: FileSysStore) -> None:
    # A block is 16,384 bytes: lines shorter, longer and much longer than one, and every way to lie across its border.
    said = [str(number) * length for number, length in enumerate((1, 20_000, 16_200, 5, 100_000, 16_384, 7), start=1)]
    for text in said:
        await say(store, "a", user(text))
    for size in range(1, len(said) + 1):
        assert texts(await store.window("a", size)) == said[-size:]


async def test_the_index_of_an_earlier_release_is_ignored_and_removed(store: FileSysStore, tmp_path: Path) -> None:
    await filled(store, 3)
    index = only_file(tmp_path).with_suffix(".keys")
    index.write_bytes(b"MLMKEYS1" + bytes(200))
    assert texts(await say(store, "a", user("m1"), identity="r1", size=1), 1) == ["m1"]
    assert len(await store.read("a")) == 3
    await store.delete("a")
    await say(store, "a", user("new"))
    assert not index.exists()


async def test_every_replay_is_known_after_a_restart(store: FileSysStore, tmp_path: Path) -> None:
    await filled(store, 100)
    other = FileSysStore(tmp_path)
    for number in (0, 57, 99):
        window = await say(other, "a", user(f"m{number}"), identity=f"r{number}", size=1)
        assert texts(window, 1) == [f"m{number}"]
    assert len(await other.read("a")) == 100
    await other.aclose()


async def test_a_replay_of_what_another_process_appended_is_known(store: FileSysStore, tmp_path: Path) -> None:
    other = FileSysStore(tmp_path)
    for number in range(10):
        await say(store if number % 2 else other, "a", user(f"m{number}"), identity=f"r{number}")
    for number in range(10):
        await say(other if number % 2 else store, "a", user(f"m{number}"), identity=f"r{number}")
    assert texts(await store.window("a", 20)) == [f"m{number}" for number in range(10)]
    await other.aclose()


async def test_the_key_cache_is_bounded_and_forgets_no_replay(store: FileSysStore) -> None:
    store._keys = KeyCache(most=5)
    for name in "abcabc":
        for number in range(4):
            await say(store, name, user(f"m{number}"), identity=f"r{number}")
    for name in "abc":
        assert len(await store.read(name)) == 4
    assert sum(len(keys.offsets) for keys in store._keys._conversations.values()) <= 5


@pytest.mark.parametrize("bit", range(8))
async def test_a_damaged_last_newline_loses_nothing(store: FileSysStore, tmp_path: Path, bit: int) -> None:
    await filled(store, 3)
    path = only_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1 << bit
    path.write_bytes(content)
    assert texts(await store.window("a", 5)) == ["m0", "m1", "m2"]
    assert texts(await say(store, "a", user("m2"), identity="r2")) == ["m0", "m1", "m2"]
    assert texts(await say(store, "a", user("m3"))) == ["m0", "m1", "m2", "m3"]
    assert "a damaged end of the last record" in (await store.stats()).detail


async def test_a_damaged_newline_between_records_loses_nothing(store: FileSysStore, tmp_path: Path) -> None:
    await say(store, "a", user('a message may hold 01234567 {"first": 1}'), identity="r0")
    await say(store, "a", user("m1"), identity="r1")
    await say(store, "a", system("be kind"), user("m2"), identity="r2")
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for place in [index for index, byte in enumerate(whole) if byte == 10][:-1]:
        path.write_bytes(whole[:place] + b"\x0b" + whole[place + 1 :])
        fresh = FileSysStore(tmp_path)
        assert len(await fresh.read("a")) == 4
        assert len(texts(await fresh.window("a", 5))) == 4
        assert texts(await say(fresh, "a", user("m1"), identity="r1", size=1), 1) == ["m1"]
        assert path.stat().st_size == len(whole)
        await fresh.aclose()


def counting_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each read from now on."""
    found: list[int] = []
    pread = os.pread

    def counted(file: int, size: int, offset: int) -> bytes:
        data = pread(file, size, offset)
        found.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    return found


@pytest.mark.parametrize(("together", "count"), [(1, 4000), (20, 10_000)])
async def test_a_window_reads_the_tail_and_not_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int, count: int
) -> None:
    store = FileSysStore(tmp_path, "none")

    async def filled_with(memory_id: str, count: int) -> None:
        turn = [user(f"a message of about a hundred characters {number:60}") for number in range(together)]
        await asyncio.gather(*(say(store, memory_id, *turn, size=1) for _ in range(count // together)))

    async def costs(memory_id: str) -> list[int]:
        found: list[int] = []
        for work in (say(store, memory_id, user("one more"), size=50), store.window(memory_id, 50)):
            reads.clear()
            await work
            found.append(sum(reads))
        return found

    await filled_with("long", count)
    await filled_with("short", 100)
    reads = counting_reads(monkeypatch)
    long, short = await costs("long"), await costs("short")
    size = max(path.stat().st_size for path in tmp_path.rglob("*.log"))
    assert size > 1_000_000
    assert max(long) < max(max(short) * 2, 150_000), "some blocks of 16 kB, whatever the length"
    await store.aclose()


async def test_pruning_reads_only_the_ends_of_what_has_nothing_to_remove(
    store: FileSysStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [system("be kind"), user("old")]
    await store.append(key("a", old), old, 1, created=1.0)
    for start in range(0, 2000, 100):
        await say(store, "a", *(user(f"a message of some length {number:60}") for number in range(start, start + 100)))
    assert await store.prune(older_than=time.time() - 60) == 1
    reads = counting_reads(monkeypatch)
    assert await store.prune(older_than=time.time() - 60, max_messages=2001) == 0
    assert 0 < sum(reads) < 100_000
    assert await store.prune(older_than=time.time() - 60, max_messages=1999) == 1
    assert await store.prune(older_than=time.time() + 60, max_messages=5000) == 2000


async def test_a_disk_that_is_full_is_503_and_leaves_nothing_behind(
    store: FileSysStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(store, 2)
    size = only_file(tmp_path).stat().st_size
    pwrite = os.pwrite

    def full(file: int, data: bytes, offset: int) -> int:
        if offset > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, data[:20], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(NotReachable, match="the memory store can't be used: No space left on device"):
            await say(store, "a", user("lost"))
    assert only_file(tmp_path).stat().st_size == size
    assert texts(await say(store, "a", user("m2"))) == ["m0", "m1", "m2"]


async def test_a_write_that_the_system_takes_in_pieces_is_whole(
    store: FileSysStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:7], offset))
    await filled(store, 3)
    assert texts(await store.window("a", 5)) == ["m0", "m1", "m2"]


async def test_a_link_in_place_of_a_file_is_not_followed(store: FileSysStore, tmp_path: Path) -> None:
    await filled(store, 1)
    path = only_file(tmp_path)
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    before = outside.read_bytes()
    with pytest.raises(NotReachable):
        await say(store, "a", user("elsewhere"))
    assert outside.read_bytes() == before


WRITER = """
import asyncio, sys
from pathlib import Path
from mlserver_memory.conformance.tools import say, user
from mlserver_memory.filesys import FileSysStore

async def main(folder, name):
    store = FileSysStore(Path(folder))
    for number in range(10**9):
        await say(store, "a", user(f"{name}-{number}"), identity=f"{name}-{number}")
        print(number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def test_several_processes_and_kill_9_keep_every_answered_append_in_order(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE) for n in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 40:
            pass
    for writer in writers:
        writer.kill()
    # The last whole line, if any was still unread, is the last append that was answered for.
    acknowledged = [max([40, *map(int, writer.communicate()[0].split(b"\n")[:-1])]) for writer in writers]

    async def read() -> list[str]:
        store = FileSysStore(tmp_path)
        await say(store, "a", user("after"))
        messages = await store.read("a", limit=100_000)
        await store.aclose()
        assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))
        return texts(messages)

    stored = asyncio.run(read())
    for number, last in enumerate(acknowledged):
        mine = [int(each.split("-")[1]) for each in stored if each.startswith(f"{number}-")]
        assert mine == list(range(len(mine)))
        assert last < len(mine) <= last + 2


@pytest.mark.parametrize("durability", ["commit", "batch", "none"])
async def test_files_are_synced_when_the_policy_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    synced: list[int] = []
    store = FileSysStore(tmp_path, durability)
    await say(store, "a", user("1"))
    monkeypatch.setattr(os, "fsync", synced.append)
    await say(store, "a", user("2"))
    await say(store, "a", user("3"))
    at_once = len(synced)
    for _ in range(100 if durability == "batch" else 0):
        if synced:
            break
        await asyncio.sleep(0.1)
    later = len(synced)
    await store.aclose()
    expected = {"commit": (True, True), "batch": (False, True), "none": (False, False)}
    assert (at_once == 2, later >= 1) == expected[durability]


async def test_the_names_of_new_folders_are_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[Path] = set()
    monkeypatch.setattr(os, "fsync", lambda file: synced.add(Path(os.readlink(f"/proc/self/fd/{file}"))))
    store = FileSysStore(tmp_path / "made" / "here")
    await store.open()
    await say(store.scope("tenant"), "a", user("1"))
    path = only_file(tmp_path)
    # From the message up to the first folder that was there before.
    assert {path, *path.parents} - set(tmp_path.parents) <= synced
    await store.aclose()


async def test_an_append_whose_file_goes_while_it_runs_is_done_again(
    store: FileSysStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(store, 2)
    written = Durability.written

    def removing(self: Durability, path: Path, records: RecordFile, is_new: bool) -> None:
        monkeypatch.setattr(Durability, "written", written)
        path.unlink()

    monkeypatch.setattr(Durability, "written", removing)
    assert texts(await say(store, "a", user("kept"))) == ["kept"]
    other = FileSysStore(tmp_path)
    assert texts(await other.read("a")) == ["kept"]
    await other.aclose()
