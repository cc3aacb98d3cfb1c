"""What an append answers from memory is what the database holds, whoever else writes to it."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from databases import sql_url, statements_of
from mlserver_chat import StoredMessage
from mlserver_memory.conformance.tools import fresh_id, say, system, texts, user
from mlserver_memory.sql import SqlStore, tails

ACTS = st.one_of(
    st.tuples(
        st.just("append"),
        st.sampled_from("ab"),
        st.lists(st.booleans(), min_size=1, max_size=4),
        st.sampled_from([1, 2, 3, 5, 50]),
    ),
    st.tuples(st.just("delete"), st.sampled_from("ab")),
    st.tuples(st.just("prune"), st.integers(1, 4)),
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/memory.db"


@pytest.fixture(params=["sqlite", "psycopg", "pg8000"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return sql_url(request.param, f"tails_{request.param}", tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.tuples(st.integers(0, 2), ACTS), max_size=25))
def test_every_append_answers_as_a_read_would(any_url: str, acts: list[tuple[int, tuple]]) -> None:
    asyncio.run(answers_as_read(any_url, acts))


async def answers_as_read(url: str, acts: list[tuple[int, tuple]]) -> None:
    # The first two share what they know, the third knows for itself, as another process would.
    other = "timeout=30" if url.startswith("sqlite") else "application_name=other"
    namespace = fresh_id()
    stores = [SqlStore(each).scope(namespace) for each in (url, url, f"{url}?{other}")]
    number = 0
    try:
        for who, (act, *arguments) in acts:
            if act == "delete":
                await stores[who].delete(*arguments)
            elif act == "prune":
                await stores[who].prune(max_messages=arguments[0])
            else:
                memory_id, systems, size = arguments
                number += 1
                messages = [(system if is_system else user)(f"{number}") for is_system in systems]
                window = await say(stores[who], memory_id, *messages, size=size)
                assert window == await stores[who].window(memory_id, size)
    finally:
        for store in stores:
            await store.aclose()


async def test_an_append_reads_nothing_where_this_process_wrote_last(url: str) -> None:
    first, second = SqlStore(url), SqlStore(url)
    await asyncio.gather(first.open(), second.open())
    await say(first, "a", user("1"), size=5)
    executed = statements_of(first)
    assert texts(await say(second, "a", user("2"), size=5)) == ["1", "2"]
    assert texts(await say(first, "a", user("3"), size=2)) == ["2", "3"]
    assert executed
    assert not [statement for statement in executed if statement.startswith("SELECT")]
    for store in (first, second):
        await store.aclose()


@pytest.mark.parametrize("whose", ["of this process", "of another"])
async def test_what_somebody_removed_is_not_answered_with(url: str, whose: str) -> None:
    store, other = SqlStore(url), SqlStore(url if whose == "of this process" else f"{url}?timeout=30")
    await asyncio.gather(store.open(), other.open())
    for number in "123":
        await say(store, "a", user(number))
    assert await other.prune(max_messages=1) == 2
    assert texts(await say(store, "a", user("4"))) == ["3", "4"]
    for each in (store, other):
        await each.aclose()


async def test_no_more_is_held_than_a_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "_MOST_CHARACTERS", 1_600)
    store = SqlStore(url)
    await store.open()
    for memory_id in "abc":
        await say(store, memory_id, user("x" * 150))
    executed = statements_of(store)
    for memory_id, reads in (("c", False), ("a", True), ("b", True)):
        executed.clear()
        assert len((await say(store, memory_id, user("y" * 150))).messages) == 2
        assert any(statement.startswith("SELECT") for statement in executed) == reads, memory_id
    await store.aclose()


async def test_a_system_message_that_was_passed_counts_for_what_is_held(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "_MOST_CHARACTERS", 5_000)
    store = SqlStore(url)
    await store.open()
    await say(store, "a", system("x" * 4_500), size=2)
    for number in range(8):
        await say(store, "a", user(str(number)), size=2)
    executed = statements_of(store)
    assert (await say(store, "a", user("last"), size=2)).system is not None
    assert any(statement.startswith("SELECT") for statement in executed)
    await store.aclose()


async def test_the_connection_that_writes_is_closed_with_the_last_store(url: str) -> None:
    first, second = SqlStore(url), SqlStore(url)
    await say(first, "a", user("1"))
    await say(second, "a", user("2"))
    writer = first._database._writer
    assert writer is second._database._writer
    await first.aclose()
    assert texts(await say(second, "a", user("3"))) == ["1", "2", "3"]
    await second.aclose()
    assert writer._pooled is None
    assert writer._engine.pool.checkedin() == 0


@pytest.mark.parametrize("kind", ["psycopg", "pg8000"])
async def test_postgresql_is_asked_for_no_message_while_a_conversation_s_row_stays_as_it_was(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sql_url(kind, f"known_{kind}", tmp_path)
    store = SqlStore(url)
    for number in "12":
        await say(store, "a", user(number), size=5)
    # Past the conversation's row, which nobody but somebody with a console does.
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE memory_messages SET record = replace(record, '1', 'one')"))
    assert texts(await say(store, "a", user("3"), size=5)) == ["1", "2", "3"]
    with engine.begin() as connection:
        connection.execute(text("UPDATE memory_conversations SET updated = updated"))
    assert texts(await say(store, "a", user("4"), size=5)) == ["one", "2", "3", "4"]
    with engine.begin() as connection:
        connection.execute(text("UPDATE memory_messages SET record = replace(record, 'one', '1')"))
    assert texts(await say(store, "a", user("5"), size=5)) == ["one", "2", "3", "4", "5"]
    monkeypatch.setattr(tails, "_SECONDS", 0.0)
    assert texts(await say(store, "a", user("6"), size=6)) == ["1", "2", "3", "4", "5", "6"]
    engine.dispose()
    await store.aclose()


@pytest.mark.parametrize("kind", ["psycopg", "pg8000"])
async def test_a_row_that_got_the_same_transaction_s_number_again_is_another(kind: str, tmp_path: Path) -> None:
    """As after a crash, a failover, or from a backup: the number is the same, the time of the append is not."""
    url = sql_url(kind, f"again_{kind}", tmp_path)
    store = SqlStore(url)
    await store.open()
    await say(store, "a", user("1"))
    known = store._database._direct._tails
    assert known is not None
    (tail,) = known._tails.values()
    row, updated = tail.version or ("", 0.0)
    # What somebody else wrote in its place.
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE memory_messages SET record = replace(record, '1', 'one')"))
    tail.version = row, updated - 1
    assert texts(await say(store, "a", user("2"))) == ["one", "2"]
    engine.dispose()
    await store.aclose()


@pytest.mark.parametrize("kind", ["psycopg", "pg8000"])
async def test_an_answer_holds_its_own_message_whatever_follows_its_commit(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlStore(sql_url(kind, f"own_{kind}", tmp_path))
    await store.open()
    await say(store, "a", user("1"))
    committed, go = threading.Event(), threading.Event()
    append = tails.Tail.append

    def paused(tail: tails.Tail, stored: Sequence[StoredMessage], *arguments: int) -> object:
        if "slow" in stored[0].record:
            committed.set()
            go.wait(10)
        return append(tail, stored, *arguments)

    monkeypatch.setattr(tails.Tail, "append", paused)
    slow = asyncio.create_task(say(store, "a", user("slow")))
    await asyncio.to_thread(committed.wait, 10)
    assert texts(await say(store, "a", user("3"))) == ["1", "slow", "3"]
    await store.delete("a")
    assert texts(await say(store, "a", user("of a new conversation"))) == ["of a new conversation"]
    go.set()
    assert texts(await slow) == ["1", "slow"]
    assert texts(await say(store, "a", user("next"))) == ["of a new conversation", "next"]
    await store.aclose()


async def test_a_conversation_that_is_too_large_to_hold_leaves_the_others_be(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "_MOST_CHARACTERS", 2_000)
    store = SqlStore(url)
    await store.open()
    await say(store, "small", user("x"))
    for _ in range(2):
        await say(store, "large", user("y" * 3_000))
    executed = statements_of(store)
    await say(store, "small", user("x"))
    assert not any(statement.startswith("SELECT") for statement in executed)
    await store.aclose()
