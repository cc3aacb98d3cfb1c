"""The queue serves the least recently served key first and, within a key, the oldest item."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlserver.types import InferenceRequest, Parameters, RequestInput

from mlserver_chat.requests.fairness import FairQueue, fair_key


def take_all(queue: FairQueue[str]) -> list[str]:
    return list(iter(lambda: queue.take() if queue._waiting else "", ""))


def test_keys_take_turns_and_each_keeps_its_order():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    assert take_all(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def busy_queue(keys: list[str]) -> FairQueue[str]:
    """A queue in which each key has had the same number of turns and has many items left."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(50):
        for key in keys:
            queue.put(key, key)
    served = [queue.take() for _ in range(5 * len(keys))]
    assert all(served.count(key) == 5 for key in keys)
    return queue


BUSY = [f"busy-{number}" for number in range(20)]


def test_the_steps_of_a_new_keys_turn_go_ahead_of_twenty_busy_keys():
    queue = busy_queue(BUSY)
    for _ in range(3):
        queue.put("user", "user")
        assert queue.take() == "user"


def test_a_head_start_is_used_up():
    queue = busy_queue(BUSY)
    for _ in range(200):
        queue.put("user", "user")
    served = [queue.take() for _ in range(21 * 20)]
    assert 20 <= served.count("user") <= 24
    assert all(served.count(key) in (19, 20) for key in BUSY)


def test_a_key_that_was_idle_for_long_counts_like_a_new_one():
    queue: FairQueue[str] = FairQueue()
    queue.put("user", "user")
    queue.take()
    for number in range(100):
        queue.put(f"k{number}", "x")
        queue.take()
    queue.put("new", "new")
    queue.put("user", "user")
    assert take_all(queue) == ["new", "user"]


def test_new_keys_cannot_starve_a_known_key():
    queue: FairQueue[str] = FairQueue()
    queue.put("user", "served once")
    queue.take()
    queue.put("user", "user")
    for number in range(10):
        queue.put(f"waiting-{number}", "x")
    for turn in count(1):
        queue.put(f"invented-{turn}", "x")
        if queue.take() == "user":
            break
    assert turn <= 10 + 64 + 1


def test_a_removed_item_is_not_served():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "b1"):
        queue.put(item[0], item)
    assert queue.remove("a", "a1") and queue.remove("b", "b1")
    assert not queue.remove("a", "a1") and not queue.remove("b", "b1") and not queue.remove("c", "c1")
    assert queue.take() == "a2"
    with pytest.raises(IndexError):
        queue.take()


@given(st.lists(st.one_of(st.integers(0, 4), st.none()), max_size=300))
def test_every_item_is_served_once_and_in_the_order_of_its_key(steps):
    queue: FairQueue[tuple[int, int]] = FairQueue()
    numbers, put, taken = count(), [], []
    for key in steps:
        if key is not None:
            put.append((key, next(numbers)))
            queue.put(key, put[-1])
        elif queue._waiting:
            taken.append(queue.take())
    while queue._waiting:
        taken.append(queue.take())
    assert sorted(taken) == sorted(put)
    for key in range(5):
        assert [item for item in taken if item[0] == key] == [item for item in put if item[0] == key]
    assert len(queue._counts) <= 64


def test_only_recent_keys_are_remembered():
    queue: FairQueue[str] = FairQueue()
    for number in range(1000):
        queue.put(number, "x")
        queue.take()
    assert len(queue._counts) <= 64


@pytest.mark.parametrize(
    ("headers", "memory_id", "key"),
    [
        ({}, None, "r-1"),
        ({"x-request-id": "r-2"}, None, "r-2"),
        ({"X-Tenant": "acme"}, None, ("acme", "")),
        ({"x-tenant": "acme", "x-request-id": "r-2"}, "chat-7", ("acme", "chat-7")),
        ({"x-request-id": "r-2"}, "chat-7", ("", "chat-7")),
    ],
)
def test_the_key_is_the_tenant_and_the_conversation_or_else_the_identity(headers, memory_id, key):
    inputs = [RequestInput(name="role", shape=[1], datatype="BYTES", data=["user"])]
    if memory_id is not None:
        inputs.append(RequestInput(name="memory_id", shape=[1], datatype="BYTES", data=[memory_id]))
    request = InferenceRequest(id="r-1", parameters=Parameters(headers=headers), inputs=inputs)
    assert fair_key(request) == key
