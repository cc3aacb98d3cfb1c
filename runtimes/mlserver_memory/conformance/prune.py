"""`prune`: what is too old or too much goes, and what is left stays sound."""
# ruff: noqa: D103 (a name here is the whole sentence)

import asyncio
import time

from mlserver_chat import MemoryStore

from .tools import fresh_id, say, system, texts, user


async def only_the_newest_messages_stay(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for number in range(10):
        await say(store, memory_id, user(str(number)))
    assert await store.prune(max_messages=3, memory_id=memory_id, dry_run=True) == 7
    assert len(await store.read(memory_id)) == 10
    assert await store.prune(max_messages=3, memory_id=memory_id) == 7
    assert texts(await store.read(memory_id)) == ["7", "8", "9"]
    assert await store.prune(max_messages=3, memory_id=memory_id) == 0


async def appending_goes_on_where_it_was(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, *(user(str(number)) for number in range(10)))
    await store.prune(max_messages=3, memory_id=memory_id)
    window = await say(store, memory_id, user("10"))
    assert texts(window) == ["7", "8", "9", "10"]
    assert [message.sequence for message in window.messages] == [8, 9, 10, 11]


async def the_newest_system_message_stays(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, system("old"), system("new"), *(user(str(number)) for number in range(8)))
    assert await store.prune(max_messages=2, memory_id=memory_id) == 7
    assert texts(await store.window(memory_id, 10)) == ["new", "6", "7"]
    assert texts(await say(store, memory_id, user("8"), size=3), 3) == ["new", "7", "8"]
    listed = {info.memory_id: info.messages async for info in store.conversations()}
    assert listed[memory_id] == 4


async def what_is_older_than_a_moment_goes(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, system("kind"), user("old"))
    created = (await store.window(memory_id, 1)).messages[0].created
    await asyncio.sleep(0.02)
    await say(store, memory_id, user("new"))
    assert await store.prune(older_than=created + 0.01, memory_id=memory_id) == 1
    assert texts(await store.read(memory_id)) == ["kind", "new"]


async def a_conversation_that_is_all_too_old_is_gone(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, system("kind"), user("a"), identity="r1")
    assert await store.prune(older_than=time.time() + 60, memory_id=memory_id) == 2
    assert await store.read(memory_id) == []
    assert memory_id not in {info.memory_id async for info in store.conversations()}
    assert list((await say(store, memory_id, system("kind"), user("a"), identity="r1")).messages) == []
    assert texts(await say(store, memory_id, user("b"))) == ["b"]


async def a_replay_of_what_was_pruned_finds_what_is_left_of_its_window(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for number in range(6):
        await say(store, memory_id, user(str(number)), identity=f"r{number}", size=3)
    await store.prune(max_messages=3, memory_id=memory_id)
    assert texts(await say(store, memory_id, user("4"), identity="r4", size=3)) == ["3", "4"]
    assert texts(await say(store, memory_id, user("1"), identity="r1", size=3)) == []
    assert texts(await store.read(memory_id)) == ["3", "4", "5"]


async def a_replay_from_before_the_system_message_that_stays_does_not_see_it(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for number in range(3):
        await say(store, memory_id, user(str(number)), identity=f"r{number}")
    await say(store, memory_id, system("kind"), identity="kind")
    for number in range(3, 6):
        await say(store, memory_id, user(str(number)), identity=f"r{number}")
    await store.prune(max_messages=1, memory_id=memory_id)
    assert texts(await say(store, memory_id, user("1"), identity="r1")) == []
    assert texts(await say(store, memory_id, user("4"), identity="r4")) == ["kind"]
    assert [message.sequence for message in await store.read(memory_id)] == [4, 7]
    assert [message.sequence for message in await store.read(memory_id, 4)] == [7]


async def without_a_limit_nothing_goes(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, user("a"))
    assert await store.prune(memory_id=memory_id) == 0
    assert texts(await store.read(memory_id)) == ["a"]


async def all_conversations_are_pruned_unless_one_is_named(store: MemoryStore) -> None:
    scoped = store.scope(fresh_id())
    for memory_id in "abc":
        await say(scoped, memory_id, *(user(str(number)) for number in range(4)))
    assert await scoped.prune(max_messages=3, memory_id="a") == 1
    assert await scoped.prune(max_messages=2) == 5
    assert await scoped.prune(max_messages=0) == 6
    assert (await scoped.stats()).conversations == 0
