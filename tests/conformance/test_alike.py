"""Whatever is done to it, in whatever order, every store answers as the one in memory does."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlserver_chat import MemoryStore, Message, Part, Window
from mlserver_memory import InMemoryStore
from mlserver_memory.conformance.tools import key
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.sql import SqlStore
from mlserver_memory.window import shape_window

CALL = '{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}'
MESSAGES = {
    "user": Message.of_text("user", "u"),
    "system": Message.of_text("system", "s"),
    "call": Message("assistant", (), (CALL,)),
    "result": Message("tool", (Part("text", "r"),), (), "c"),
}

START = time.time() - 3600.0

# Mostly one conversation, so that much happens to it.
ids = st.sampled_from("aaab")
namespaces = st.sampled_from(["", "", "", "n"])
sizes = st.integers(1, 6)
appends = st.tuples(
    st.just("append"),
    namespaces,
    ids,
    st.lists(st.sampled_from(sorted(MESSAGES)), min_size=1, max_size=3),
    # Few identities, so that some are replays.
    st.integers(0, 9),
    sizes,
)
prunings = st.tuples(
    st.just("prune"), namespaces, st.none() | ids, st.none() | st.integers(0, 20), st.none() | st.integers(0, 4)
)
steps = st.one_of(
    appends,
    appends,
    appends,
    appends,
    prunings,
    st.tuples(st.just("window"), namespaces, ids, sizes),
    st.tuples(st.just("read"), namespaces, ids, st.integers(0, 8), sizes),
    st.tuples(st.just("delete"), namespaces, ids),
    st.tuples(st.just("list"), namespaces),
)


async def done(store: MemoryStore, step: tuple[Any, ...], clock: int) -> object:
    """What a store answers to a step, which is taken `clock` seconds after `START`."""
    match step:
        case "append", namespace, memory_id, names, identity, size:
            messages = [MESSAGES[name] for name in names]
            known = key(memory_id, messages, str(identity))
            return shown(await store.scope(namespace).append(known, messages, size, created=START + clock), size)
        case "window", namespace, memory_id, size:
            return shown(await store.scope(namespace).window(memory_id, size), size)
        case "read", namespace, memory_id, after, limit:
            return seen(await store.scope(namespace).read(memory_id, after, limit))
        case "delete", namespace, memory_id:
            return await store.scope(namespace).delete(memory_id)
        case "prune", namespace, memory_id, older_than, max_messages:
            moment = None if older_than is None else START + older_than
            return await store.scope(namespace).prune(moment, max_messages, memory_id)
        case _, namespace:
            scoped = store.scope(namespace)
            stats = await scoped.stats()
            return sorted([info async for info in scoped.conversations()], key=str), stats.conversations, stats.messages


def seen(messages: Any) -> list[tuple[int, str, float]]:
    return [(each.sequence, each.record, each.created) for each in messages]


def shown(window: Window, size: int) -> object:
    """A system message that pruning left behind a gap may count among the newest or not: the specs ask for it."""
    return seen(each for each in shape_window(window, size) if each.role != "system")


def in_files(folder: Path) -> Sequence[MemoryStore]:
    return [FileSysStore(folder, "none") for _ in range(3)]


def in_sqlite(folder: Path) -> Sequence[MemoryStore]:
    # With other options the third has connections of its own, as if it were in another process.
    return [SqlStore(f"sqlite:///{folder}/memory.db", {"pool_size": size}) for size in (2, 2, 3)]


# A system message that pruning kept, older than all others, goes once there is a newer one.
FREED = [
    (0, ("append", "", "a", ["user"], 0, 1)),
    (0, ("append", "", "a", ["user", "system"], 1, 1)),
    (0, ("append", "", "a", ["user", "user"], 2, 1)),
    (0, ("prune", "", None, None, 1)),
    (0, ("append", "", "a", ["system"], 3, 1)),
    (0, ("prune", "", None, 2, None)),
]

# Not more than asked for are there, though the oldest of them lies behind a gap.
SPARED = [
    (0, ("append", "", "a", ["user", "system", "user"], 0, 1)),
    (0, ("append", "", "a", ["user", "user"], 1, 1)),
    (0, ("prune", "", None, None, 2)),
    (0, ("append", "", "a", ["system"], 2, 1)),
    (0, ("prune", "", None, None, 4)),
    (0, ("prune", "", None, 0, 4)),
]


@pytest.mark.parametrize("make", [in_files, in_sqlite])
@example(history=FREED)
@example(history=SPARED)
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2]), steps), min_size=15, max_size=40))
def test_every_store_answers_as_the_one_in_memory(
    make: Callable[[Path], Sequence[MemoryStore]], history: list[tuple[int, Any]]
) -> None:
    async def compare(folder: Path) -> None:
        # Several over one place: what one knows, another may have changed.
        reference, stores = InMemoryStore(), make(folder)
        try:
            for clock, (which, step) in enumerate(history):
                assert await done(stores[which], step, clock) == await done(reference, step, clock), (clock, step)
        finally:
            for store in stores:
                await store.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder)))
