"""`scope`: nothing in one namespace shows or changes another."""
# ruff: noqa: D103 (a name here is the whole sentence)

import time

from mlserver_chat import MemoryStore

from .tools import fresh_id, say, texts, user


async def the_same_id_in_two_namespaces_is_two_conversations(store: MemoryStore) -> None:
    first, second, memory_id = store.scope(fresh_id()), store.scope(fresh_id()), fresh_id()
    await say(first, memory_id, user("mine"), identity="r1")
    assert list((await second.window(memory_id, 10)).messages) == []
    await say(second, memory_id, user("mine"), identity="r1")
    await say(second, memory_id, user("more"))
    assert texts(await first.window(memory_id, 10)) == ["mine"]
    assert texts(await second.window(memory_id, 10)) == ["mine", "more"]
    assert list((await store.window(memory_id, 10)).messages) == []


async def no_verb_reaches_into_another_namespace(store: MemoryStore) -> None:
    first, second, memory_id = store.scope(fresh_id()), store.scope(fresh_id()), fresh_id()
    await say(first, memory_id, user("a"), user("b"))
    assert await second.read(memory_id) == []
    assert await second.delete(memory_id) == 0
    assert await second.prune(older_than=time.time() + 60, max_messages=0) == 0
    assert await second.prune(max_messages=0, memory_id=memory_id) == 0
    assert [info async for info in second.conversations()] == []
    assert (await second.stats()).messages == 0
    assert texts(await first.read(memory_id)) == ["a", "b"]


async def names_that_look_alike_are_different_namespaces(store: MemoryStore) -> None:
    base, memory_id = fresh_id(), fresh_id()
    names = [base + tail for tail in ("", "a", "A", "../a", "a\u0301", "á", "'; --")]
    for name in names:
        await say(store.scope(name), memory_id, user(name))
    for name in names:
        assert texts(await store.scope(name).window(memory_id, 10)) == [name]


async def a_scope_of_a_scope_is_that_namespace(store: MemoryStore) -> None:
    name, memory_id = fresh_id(), fresh_id()
    await say(store.scope("other").scope(name), memory_id, user("a"))
    assert texts(await store.scope(name).window(memory_id, 10)) == ["a"]


async def every_namespace_with_a_conversation_is_named(store: MemoryStore) -> None:
    full, empty = fresh_id(), fresh_id()
    await say(store.scope(full), "a", user("a"))
    await store.scope(empty).window("a", 1)
    names = [name async for name in store.scope(empty).namespaces()]
    assert names.count(full) == 1
    assert empty not in names
