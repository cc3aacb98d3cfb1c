"""`conversations`: all that hold a message."""
# ruff: noqa: D103 (a name here is the whole sentence)

from mlserver_chat import MemoryStore

from .tools import fresh_id, say, user


async def every_conversation_is_listed_once_with_its_size(store: MemoryStore) -> None:
    ids = [fresh_id() + tail for tail in ("", "/../x", "🙂", " ")]
    for count, memory_id in enumerate(ids, 1):
        for number in range(count):
            await say(store, memory_id, user(str(number)))
    listed = {info.memory_id: info async for info in store.conversations()}
    assert [listed[memory_id].messages for memory_id in ids if memory_id in listed] == [1, 2, 3, 4]
    for memory_id in ids:
        newest = (await store.window(memory_id, 1)).messages[-1]
        assert listed[memory_id].updated == newest.created


async def a_deleted_conversation_is_not_listed(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, user("a"))
    await store.delete(memory_id)
    assert memory_id not in {info.memory_id async for info in store.conversations()}
