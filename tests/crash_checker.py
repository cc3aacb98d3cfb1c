"""Exactly once, whatever happens to the disk: what was acknowledged is there once and in order, replays included."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mlserver_chat import ChatError, MemoryStore
from mlserver_memory.conformance.tools import say, texts, user
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.sql import SqlStore

STORES: dict[str, Callable[[Path], MemoryStore]] = {
    "files": FileSysStore,
    "sqlite": lambda folder: SqlStore(f"sqlite:///{folder}/memory.db", {"connect_args": {"timeout": 0.5}}),
}


async def try_to_say(store: MemoryStore, memory_id: str, number: int) -> bool:
    """Append message `number` under its own key; whether it was acknowledged. Only the error tree may be raised."""
    try:
        await say(store, memory_id, user(f"m{number}"), identity=f"r{number}", size=3)
    except ChatError as error:
        assert error.status_code == 503, error
        return False
    return True


async def check_exactly_once(store: MemoryStore, memory_id: str, acknowledged: Sequence[int], tried: int) -> None:
    """Acknowledged messages are stored in their order; after replaying all, each of `tried` messages is stored once."""
    stored = texts(await store.read(memory_id))
    expected = [f"m{number}" for number in acknowledged]
    assert [text for text in stored if text in set(expected)] == expected
    for number in range(tried):
        assert await try_to_say(store, memory_id, number), f"m{number} was refused on a healthy disk"
    stored = texts(await store.read(memory_id))
    assert sorted(stored) == sorted(f"m{number}" for number in range(tried))
    assert [text for text in stored if text in set(expected)] == expected
