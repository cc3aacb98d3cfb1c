"""Flipped bits: a fault of one record is that record's, and the store never answers outside the error tree."""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from crash_checker import STORES, try_to_say
from mlserver_chat import ChatError
from mlserver_memory.conformance.tools import texts
from mlserver_memory.filesys import FileSysStore
from support import Server, text

RECORDS = 20
SEEDS = range(60)


async def build(kind: str, folder: Path) -> None:
    folder.mkdir()
    store = STORES[kind](folder)
    for number in range(RECORDS):
        assert await try_to_say(store, "a", number)
        assert await try_to_say(store, "b", number)
    await store.aclose()


def flip(path: Path, rng: random.Random) -> int:
    """Flip one bit; returns its byte."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return place


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "store"
    asyncio.run(build("files", folder))
    return folder


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_flipped_bit_costs_a_file_store_one_record_at_most(files: Path, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "store"
    shutil.copytree(files, folder)
    rng = random.Random(seed)
    store = FileSysStore(folder)
    damaged = store._path("a")
    lines = damaged.read_bytes().splitlines(keepends=True)
    place = flip(damaged, rng)
    sizes = [sum(map(len, lines[: index + 1])) for index in range(len(lines))]
    record = next(index for index, size in enumerate(sizes) if place < size) - 1  # the header is no record
    others = [f"m{number}" for number in range(RECORDS) if number != record]
    assert [each for each in texts(await store.read("a")) if each in others] == others
    assert texts(await store.read("b")) == [f"m{number}" for number in range(RECORDS)]
    for number in range(RECORDS + 1):
        assert await try_to_say(store, "a", number)
    stored = texts(await store.read("a"))
    assert sorted(each for each in stored if each in others) == sorted(others)
    assert f"m{RECORDS}" in stored
    assert len(stored) in (RECORDS + 1, RECORDS + 2)
    assert "damaged" in (await store.stats()).detail or "cut short" in (await store.stats()).detail
    await store.aclose()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sqlite") / "store"
    asyncio.run(build("sqlite", folder))
    return folder / "memory.db"


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_flipped_bit_in_sqlite_is_answered_within_the_error_tree(
    database: Path, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "memory.db"
    shutil.copy(database, path)
    rng = random.Random(seed)
    for _ in range(1 + seed % 3):
        flip(path, rng)
    store = STORES["sqlite"](tmp_path)
    for memory_id in ("a", "b", "new"):
        try:
            await store.read(memory_id)
            await store.window(memory_id, 5)
            await try_to_say(store, memory_id, RECORDS)
        except ChatError as error:
            assert error.status_code in (500, 503)
    await store.stats()
    await store.aclose()


async def test_text_that_is_not_utf_8_is_the_fault_of_one_conversation(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    shutil.copy(database, path)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE memory_messages SET record = CAST(X'7BFF7D' AS TEXT) WHERE sequence = 5 AND conversation = "
            "(SELECT id FROM memory_conversations WHERE memory_id = 'a')"
        )
    store = STORES["sqlite"](tmp_path)
    for number in range(RECORDS, RECORDS + 20):
        with pytest.raises(ChatError, match="can't be read"):
            await store.read("a")
        assert await try_to_say(store, "b", number)
        assert len(texts(await store.read("b"))) == number + 1
    await store.aclose()


def corruptions(size: int) -> dict[str, Callable[[bytearray], bytes]]:
    def random_page(number: int) -> Callable[[bytearray], bytes]:
        rng = random.Random(number)
        return lambda content: bytes(content[: number * 4096] + rng.randbytes(4096) + content[(number + 1) * 4096 :])

    return {
        "empty": lambda _: b"",
        "text": lambda _: b"this is no database" * 1000,
        "zeros": lambda content: bytes(len(content)),
        "half": lambda content: bytes(content[: len(content) // 2]),
        "odd": lambda content: bytes(content[:-100]),
        "no magic": lambda content: b"X" * 16 + bytes(content[16:]),
        "schema": lambda content: bytes(content).replace(b"CREATE TABLE", b"CREATE TABEL"),
        "names": lambda content: bytes(content).replace(b"conversation", b"conversatiom"),
        **{f"page {number}": random_page(number) for number in range(min(size // 4096, 7))},
    }


def test_a_server_starts_on_a_corrupted_file_and_answers(
    database: Path, tmp_path: Path, mlserver: Callable[..., Server]
) -> None:
    content = database.read_bytes()
    models: dict[str, dict[str, object]] = {}
    for index, (_, corrupt) in enumerate(corruptions(len(content)).items()):
        path = tmp_path / f"{index}.db"
        path.write_bytes(corrupt(bytearray(content)))
        config = {"url": f"sqlite:///{path}", "operations": ["append", "window", "stats"]}
        models[f"memory-{index}"] = {
            "implementation": "mlserver_memory.ConversationalMemory",
            "parameters": {"extra": {"database": "sql", "config": config}},
        }
    server = mlserver(models)
    for name in models:
        response = server.infer(name, [text("memory_id", "a")])
        assert response.status_code in (200, 500, 503), response.text
        assert "Traceback" not in response.text
    assert server.process.poll() is None
