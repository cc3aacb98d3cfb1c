"""`append`: all or nothing, once a key, in one order."""
# ruff: noqa: D103 (a name here is the whole sentence)

import asyncio
from collections import Counter

from mlserver_chat import InvalidInput, MemoryStore, Message, Part
from mlserver_chat.tensors import dumps

from .tools import fresh_id, key, say, system, texts, user

CALL = '{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}'

TEXTS = (
    "",
    " ",
    "line\nline\r\nline\ttab",
    "\\ \" ' % %s {name} $1 :name ?",
    "'; DROP TABLE memory_messages; --",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🙂 \u202e مرحبا \u0301 \u2028 \x7f \x1b",
    '["text"]',
    "null",
)

STATEMENTS = (
    "'; DROP TABLE memory_messages; --",
    '" OR ""="',
    "`\\'; --",
    "%s %(p_id)s :p_id ? $1 {0}",
    "' || (SELECT 1) || '",
)


async def the_window_ends_with_what_was_appended(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for number in range(11):
        await say(store, memory_id, user(str(number)), size=5)
    window = await say(store, memory_id, user("11"), size=5)
    assert texts(window) == ["7", "8", "9", "10", "11"]
    assert [message.sequence for message in window.messages] == [8, 9, 10, 11, 12]


async def sequences_begin_at_one_and_have_no_gaps(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, user("a"), user("b"))
    window = await say(store, memory_id, user("c"))
    assert [message.sequence for message in window.messages] == [1, 2, 3]


async def messages_of_one_append_stay_together_and_in_order(store: MemoryStore) -> None:
    memory_id = fresh_id()
    turns = [[user(f"{turn}.{part}") for part in range(3)] for turn in range(8)]
    await asyncio.gather(*(say(store, memory_id, *turn) for turn in turns))
    stored = texts(await store.read(memory_id))
    assert len(stored) == 24
    assert all(stored[n].split(".")[0] == stored[n - n % 3].split(".")[0] for n in range(24))
    assert [text.split(".")[1] for text in stored] == ["0", "1", "2"] * 8


async def more_messages_than_the_window_are_all_stored(store: MemoryStore) -> None:
    memory_id = fresh_id()
    window = await say(store, memory_id, *(user(str(number)) for number in range(20)), size=3)
    assert texts(window, 3) == ["17", "18", "19"]
    assert len(await store.read(memory_id)) == 20


async def the_same_key_again_is_stored_once(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, user("a"))
    first = await say(store, memory_id, user("b"), user("c"), identity="r1", size=2)
    await say(store, memory_id, user("d"))
    again = await say(store, memory_id, user("b"), user("c"), identity="r1", size=2)
    assert again == first
    assert texts(await store.read(memory_id)) == ["a", "b", "c", "d"]


async def other_words_under_one_identity_are_another_message(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, user("a"), identity="r1")
    await say(store, memory_id, user("b"), identity="r1")
    assert texts(await store.read(memory_id)) == ["a", "b"]


async def the_same_key_at_the_same_time_is_stored_once(store: MemoryStore) -> None:
    memory_id = fresh_id()
    windows = await asyncio.gather(*(say(store, memory_id, user("a"), identity="r1") for _ in range(12)))
    assert all(window == windows[0] for window in windows)
    assert texts(await store.read(memory_id)) == ["a"]


async def many_first_writers_of_one_conversation_all_get_in(store: MemoryStore) -> None:
    memory_id = fresh_id()
    windows = await asyncio.gather(*(say(store, memory_id, user(str(n)), size=50) for n in range(40)))
    stored = await store.read(memory_id)
    assert Counter(texts(stored)) == Counter(str(n) for n in range(40))
    assert [message.sequence for message in stored] == list(range(1, 41))
    # Every answer is a prefix of the conversation: nobody saw a hole or another order.
    assert all(texts(window, 50) == texts(stored)[: len(window.messages)] for window in windows)
    assert {len(window.messages) for window in windows} == set(range(1, 41))


async def writers_at_once_each_get_the_window_that_ends_at_theirs(store: MemoryStore) -> None:
    memory_id = fresh_id()
    await say(store, memory_id, system("s"), *(user("old") for _ in range(10)))
    await store.prune(max_messages=4, memory_id=memory_id)
    windows = await asyncio.gather(*(say(store, memory_id, user(str(n)), size=6) for n in range(60)))
    stored = await store.read(memory_id)
    shown = {message.sequence: message.message.text for message in stored}
    assert list(shown) == [1, *range(8, 72)]
    for number, window in enumerate(windows):
        last = window.messages[-1].sequence
        assert shown[last] == str(number)
        assert texts(window, 6) == ["s", *(shown[sequence] for sequence in range(max(8, last - 4), last + 1))]


async def a_caller_that_goes_away_leaves_a_whole_message_or_none(store: MemoryStore) -> None:
    memory_id = fresh_id()
    tasks = [asyncio.create_task(say(store, memory_id, user(f"{n}.0"), user(f"{n}.1"))) for n in range(20)]
    await asyncio.sleep(0.002)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    acknowledged = [f"{n}.{part}" for n in range(20) if not isinstance(results[n], BaseException) for part in range(2)]
    await say(store, memory_id, user("end.0"), user("end.1"))
    stored = texts(await store.read(memory_id))
    assert set(acknowledged) <= set(stored)
    assert stored[::2] == [text.replace(".1", ".0") for text in stored[1::2]]
    assert max(Counter(stored).values()) == 1


async def parts_and_tool_traffic_come_back_as_they_were(store: MemoryStore) -> None:
    memory_id = fresh_id()
    messages = [
        Message("user", (Part("text", "what is this?"), Part("image_url", '{"url": "https://x/y.png"}'))),
        Message("assistant", (), (CALL, CALL.replace("c1", "c2"))),
        Message("tool", (Part("text", "42"),), (), "c1"),
    ]
    window = await say(store, memory_id, *messages)
    assert [stored.message for stored in window.messages] == messages
    assert [stored.message for stored in await store.read(memory_id)] == messages


async def any_text_comes_back_as_it_was(store: MemoryStore) -> None:
    memory_id = fresh_id()
    for text in TEXTS:
        await say(store, memory_id, user(text))
    assert texts(await store.read(memory_id)) == list(TEXTS)


async def what_looks_like_a_statement_is_only_text_wherever_it_stands(store: MemoryStore) -> None:
    for text in STATEMENTS:
        namespace, memory_id = fresh_id() + text, fresh_id() + text
        scoped = store.scope(namespace)
        messages = [Message(text, (Part(text, text),), (dumps({"id": text}),), text)]
        provenance = {name: text for name in ("prompt", "prompt_version", "prompt_hash", "model")}
        for _ in range(2):
            await scoped.append(key(memory_id, messages, text), messages, 10, provenance)
        stored = [(each.message, dict(each.provenance)) for each in await scoped.read(memory_id)]
        assert stored == [(messages[0], provenance)]
        assert [info.memory_id async for info in scoped.conversations()] == [memory_id]
        assert namespace in [name async for name in store.namespaces()]
        assert await scoped.prune(max_messages=1, memory_id=text) == await scoped.delete(text) == 0
        assert await scoped.delete(memory_id) == 1


async def a_nul_comes_back_or_is_refused(store: MemoryStore) -> None:
    memory_id = fresh_id()
    try:
        await say(store, memory_id, user("a\0b"))
    except InvalidInput:
        assert await store.read(memory_id) == []
    else:
        assert texts(await store.read(memory_id)) == ["a\0b"]


async def parts_of_a_megabyte_come_back_whole(store: MemoryStore) -> None:
    memory_id = fresh_id()
    large = "0123456789abcde🙂" * 60_000
    await say(store, memory_id, user("small"), user(large), user("after"))
    assert texts(await say(store, memory_id, user("end"))) == ["small", large, "after", "end"]


async def ids_that_look_alike_are_different_conversations(store: MemoryStore) -> None:
    base = fresh_id()
    ids = [base + tail for tail in ("a", "A", "a ", "á", "a\u0301", "ａ", "ß", "ss", "🙂" * 200, "../a", "a/", "%61")]
    for memory_id in ids:
        await say(store, memory_id, user(memory_id))
    for memory_id in ids:
        assert texts(await store.window(memory_id, 10)) == [memory_id]


async def provenance_is_kept_with_each_message(store: MemoryStore) -> None:
    memory_id = fresh_id()
    messages = [user("a"), system("b")]
    provenance = {"prompt": "p", "prompt_version": "2", "prompt_hash": "é" * 64, "model": "m"}
    window = await store.append(key(memory_id, messages), messages, 10, provenance)
    await say(store, memory_id, user("c"))
    assert [dict(stored.provenance) for stored in await store.read(memory_id)] == [provenance, provenance, {}]
    assert [dict(stored.provenance) for stored in window.messages] == [provenance, provenance]


async def the_time_that_an_import_brings_along_is_kept(store: MemoryStore) -> None:
    memory_id, messages = fresh_id(), [user("long ago"), user("and then")]
    window = await store.append(key(memory_id, messages), messages, 10, created=1_000_000.5)
    assert [message.created for message in window.messages] == [1_000_000.5] * 2
    await say(store, memory_id, user("now"))
    old, _, new = await store.read(memory_id)
    assert old.created == 1_000_000.5
    assert new.created > 1_600_000_000
