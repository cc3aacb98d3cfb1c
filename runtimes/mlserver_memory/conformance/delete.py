"""`delete`: a conversation is gone, and stays gone."""
# ruff: noqa: D103 (a name here is the whole sentence)

from mlserver_chat import MemoryStore

from .tools import fresh_id, say, texts, user


async def a_deleted_conversation_is_empty(store: MemoryStore) -> None:
    memory_id, other = fresh_id(), fresh_id()
    await say(store, memory_id, user("a"), user("b"))
    await say(store, other, user("c"))
    assert await store.delete(memory_id) == 2
    assert list((await store.window(memory_id, 10)).messages) == []
    assert await store.read(memory_id) == []
    assert texts(await store.window(other, 10)) == ["c"]


async def deleting_what_is_not_there_removes_nothing(store: MemoryStore) -> None:
    memory_id = fresh_id()
    assert await store.delete(memory_id) == 0
    await say(store, memory_id, user("a"))
    assert await store.delete(memory_id) == 1
    assert await store.delete(memory_id) == 0


async def a_replay_does_not_bring_it_back(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, user("a"), identity="r1")
    await store.delete(memory_id)
    assert list((await say(store, memory_id, user("a"), identity="r1")).messages) == []
    assert await store.read(memory_id) == []


async def a_new_conversation_may_begin_under_the_same_id(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, user("a"), identity="r1")
    await store.delete(memory_id)
    window = await say(store, memory_id, user("b"))
    assert [(message.sequence, message.message.text) for message in window.messages] == [(1, "b")]
    assert list((await say(store, memory_id, user("a"), identity="r1")).messages) == []
