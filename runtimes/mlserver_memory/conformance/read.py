"""`read`: a conversation page by page."""
# ruff: noqa: D103 (a name here is the whole sentence)

from mlserver_chat import MemoryStore

from .tools import fresh_id, say, texts, user


async def an_unknown_conversation_has_no_messages(store: MemoryStore) -> None:
    assert await store.read(fresh_id()) == []


async def pages_follow_one_another(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for start in range(0, 25, 5):
        await say(store, memory_id, *(user(str(number)) for number in range(start, start + 5)))
    found: list[str] = []
    after = 0
    while page := await store.read(memory_id, after, 7):
        found += texts(page)
        after = page[-1].sequence
    assert found == [str(number) for number in range(25)]
    assert await store.read(memory_id, 25) == []


async def a_page_deep_in_a_long_conversation_is_the_right_one(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for start in range(0, 1500, 300):
        await say(store, memory_id, *(user(f"{number} " + "x" * (number % 83)) for number in range(start, start + 300)))
    for after in (0, 1, 299, 300, 777, 1499):
        page = await store.read(memory_id, after, 2)
        assert [message.sequence for message in page] == list(range(after + 1, min(after + 3, 1501)))
