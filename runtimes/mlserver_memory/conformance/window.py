"""`window`: the newest messages, and the system message when it is older."""
# ruff: noqa: D103 (a name here is the whole sentence)

from mlserver_chat import MemoryStore, Message, Part, Window

from .tools import fresh_id, say, system, texts, user


async def an_unknown_conversation_is_empty(store: MemoryStore) -> None:
    assert list((await store.window(fresh_id(), 10)).messages) == []


async def reading_shows_what_appending_showed(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for number in range(6):
        await say(store, memory_id, user(str(number)), size=4)
    appended = await say(store, memory_id, user("6"), size=4)
    assert await store.window(memory_id, 4) == appended


async def the_newest_come_oldest_first(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, *(user(str(number)) for number in range(30)))
    assert texts(await store.window(memory_id, 3), 3) == ["27", "28", "29"]
    assert len((await store.window(memory_id, 100)).messages) == 30
    assert texts(await store.window(memory_id, 1), 1) == ["29"]


async def the_newest_system_message_comes_along_once_it_is_older(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, system("old"))
    await say(store, memory_id, user("0"), system("new"), user("1"))
    window = await store.window(memory_id, 2)
    assert texts(window, 2) == ["new", "1"]
    assert window.system is None
    for number in range(2, 8):
        window = await say(store, memory_id, user(str(number)), size=3)
    assert window.system is not None
    assert window.system.message == system("new")
    assert texts(window, 3) == ["new", "6", "7"]
    assert await store.window(memory_id, 3) == window


async def a_replay_sees_the_system_message_of_its_time(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, system("old"), user("0"), user("1"))
    first = await say(store, memory_id, user("2"), identity="r1", size=2)
    await say(store, memory_id, system("new"), user("3"), user("4"))
    assert await say(store, memory_id, user("2"), identity="r1", size=2) == first
    assert texts(first, 2) == ["old", "2"]


async def a_developer_message_is_a_system_message(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, Message.of_text("developer", "d"), user("0"), user("1"), user("2"))
    assert texts(await store.window(memory_id, 2), 2) == ["d", "2"]


async def a_window_of_one_is_the_newest_message(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, system("kind"), user("0"))
    assert texts(await say(store, memory_id, user("1"), size=1), 1) == ["1"]
    assert texts(await store.window(memory_id, 1), 1) == ["1"]


async def a_result_is_never_without_its_call(store: MemoryStore) -> None:
    memory_id = fresh_id()
    call = '{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}'
    results = [Message("tool", (Part("text", text),), (), "c1") for text in ("r0", "r1")]
    await say(store, memory_id, user("0"), Message("assistant", (), (call,)), *results, user("1"))
    assert texts(await store.window(memory_id, 4), 4) == ["", "r0", "r1", "1"]
    for size in (3, 2):
        assert texts(await store.window(memory_id, size), size) == ["1"]
    await say(store, memory_id, system("kind"), user("2"), user("3"))
    assert texts(await store.window(memory_id, 6), 6) == ["1", "kind", "2", "3"]


async def a_long_conversation_has_the_window_of_a_short_one(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for start in range(0, 2000, 500):
        await say(store, memory_id, *(user(f"{number} " + "x" * (number % 97)) for number in range(start, start + 500)))
    window: Window = await store.window(memory_id, 50)
    assert [message.sequence for message in window.messages] == list(range(1951, 2001))
