"""The queue of the worker thread: its order, its limits, and callers that leave it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from mlserver_chat import InvalidInput, NotReachable, RateLimited, UpstreamFailed
from mlserver_chat.limits import GenerationLimits
from mlserver_chat.requests.deadline import Deadline, deadline_scope
from mlserver_llm_local.worker import ModelQueue, Worker

LONG = GenerationLimits(queue_timeout=60)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test")
    yield made
    made.close()


@pytest.fixture
async def busy(worker: Worker) -> AsyncIterator[Callable[[], None]]:
    """A function that ends the work that keeps the thread busy."""
    end = threading.Event()
    queue = ModelQueue(worker, "busy", LONG)
    started = threading.Event()

    def work(_: threading.Event) -> None:
        started.set()
        assert end.wait(20)

    task = asyncio.create_task(queue.run("busy", work))
    await asyncio.to_thread(started.wait, 10)
    yield end.set
    end.set()
    await task


def queue_of(worker: Worker, **limits: float) -> ModelQueue:
    return ModelQueue(worker, "m", GenerationLimits(**limits))


async def waiting(*works: asyncio.Task) -> None:
    """Let the tasks add their jobs to the queue."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(work.done() for work in works)


async def test_models_share_the_thread_and_callers_take_turns(worker, busy):
    first, second = queue_of(worker), queue_of(worker)
    order: list[str] = []
    tasks = []
    for key, queue in (("a", first), ("a", first), ("a", second), ("b", second), ("c", first)):
        tasks.append(asyncio.create_task(queue.run(key, lambda _, key=key: order.append(key))))
        await waiting(tasks[-1])
    busy()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c", "a", "a"]


async def test_a_full_queue_answers_429_with_a_time_to_wait(worker, busy):
    full, other = queue_of(worker, max_queue=2), queue_of(worker, max_queue=2)
    tasks = [asyncio.create_task(full.run(n, lambda _: None)) for n in range(2)]
    await waiting(*tasks)
    with pytest.raises(RateLimited, match=r"model 'm' has 2 requests waiting; try again after \d+ s") as refused:
        await full.run("x", lambda _: None)
    assert refused.value.retry_after >= 1
    tasks.append(asyncio.create_task(other.run("x", lambda _: None)))
    await waiting(*tasks)
    busy()
    await asyncio.gather(*tasks)
    assert await full.run("x", lambda _: 7) == 7


async def test_waiting_too_long_is_429_and_the_work_never_runs(worker, busy):
    queue = queue_of(worker, queue_timeout=0.05)
    ran = []
    with pytest.raises(RateLimited, match=r"model 'm' kept the request waiting for 0.05 s; try again after"):
        await queue.run("x", lambda _: ran.append(1))
    busy()
    await queue.run("y", lambda _: None)
    assert not ran


async def test_work_that_began_in_time_may_take_longer_than_the_queue_timeout(worker):
    assert await queue_of(worker, queue_timeout=0.05).run("x", lambda _: time.sleep(0.2) or 5) == 5


async def test_a_cancelled_caller_gives_up_its_place(worker, busy):
    queue = queue_of(worker, max_queue=1)
    ran = []
    task = asyncio.create_task(queue.run("x", lambda _: ran.append(1)))
    await waiting(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(worker._waiting) == 0
    next_task = asyncio.create_task(queue.run("x", lambda _: 3))
    busy()
    assert await next_task == 3
    assert not ran


async def test_running_work_is_told_that_its_caller_left(worker):
    queue = queue_of(worker)
    started, noticed = threading.Event(), threading.Event()

    def work(unwanted: threading.Event) -> None:
        started.set()
        if unwanted.wait(10):
            noticed.set()

    task = asyncio.create_task(queue.run("x", work))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(noticed.wait, 10)


async def test_a_deadline_in_the_queue_is_503(worker, busy):
    ran = []
    with deadline_scope(Deadline.after(0.05)), pytest.raises(NotReachable, match="time ran out while it waited"):
        await queue_of(worker).run("x", lambda _: ran.append(1))
    busy()
    await queue_of(worker).run("y", lambda _: None)
    assert not ran


async def test_a_deadline_during_the_work_is_424_and_ends_the_work(worker):
    noticed = threading.Event()

    def work(unwanted: threading.Event) -> None:
        if unwanted.wait(10):
            noticed.set()

    with (
        deadline_scope(Deadline.after(0.1)),
        pytest.raises(UpstreamFailed, match="time ran out while model 'm' worked"),
    ):
        await queue_of(worker).run("x", work)
    assert await asyncio.to_thread(noticed.wait, 10)


async def test_an_error_of_the_work_reaches_its_caller(worker):
    def fail(_: threading.Event) -> None:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput, match="no"):
        await queue_of(worker).run("x", fail)


async def test_drain_waits_for_all_work_and_rejects_new_work(worker, busy):
    queue = queue_of(worker)
    tasks = [asyncio.create_task(queue.run(n, lambda _, n=n: n)) for n in range(3)]
    await waiting(*tasks)
    tasks[1].cancel()
    draining = asyncio.create_task(queue.drain())
    await asyncio.sleep(0.05)
    assert not draining.done()
    with pytest.raises(NotReachable, match="model 'm' is not ready"):
        await queue.run("x", lambda _: None)
    busy()
    await draining
    assert await tasks[0] == 0 and await tasks[2] == 2
