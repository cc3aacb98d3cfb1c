"""Threads for calls that block, made for calls of a tenth of a millisecond.

A `ThreadPoolExecutor` gives work to the thread that has waited longest, whose caches are the coldest, and hands results
on twice. With these the way there and back takes half as long, and a query as long as in one thread alone.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from mlserver_chat import NotReachable

T = TypeVar("T")

Job = Callable[[], Callable[[], object] | None]
"""Does its work, which must not raise; gives what is left to do once its thread may have the next, if anything."""


class Threads:
    """Up to `most` threads; work goes to the one that was the last to work.

    They are daemons: a process that ends without `aclose` doesn't wait for them.
    """

    def __init__(self, most: int, name: str):
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle: list[SimpleQueue[Job | None]] = []
        self._waiting: deque[Job] = deque()
        self._is_closed = False

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """What `call` returns or raises; a cancelled caller leaves it to finish."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def job() -> Callable[[], object]:
            try:
                result = call(*arguments)
            except BaseException as error:
                return lambda error=error: tell(loop, fail, outcome, error)
            return lambda: tell(loop, succeed, outcome, result)

        self.submit(job)
        return await outcome

    def submit(self, job: Job) -> None:
        """Have `job` done.

        Raises:
            NotReachable: the threads were closed.
        """
        with self._lock:
            if self._is_closed:
                raise NotReachable("the memory store was closed")
            if not self._idle and len(self._threads) == self._most:
                self._waiting.append(job)
                return
            jobs = self._idle.pop() if self._idle else self._started()
        jobs.put(job)

    async def aclose(self) -> None:
        """Do what was submitted, and end."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for jobs in idle:
            jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _started(self) -> SimpleQueue[Job | None]:
        jobs: SimpleQueue[Job | None] = SimpleQueue()
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, args=(jobs,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
        return jobs

    def _work(self, jobs: SimpleQueue[Job | None]) -> None:
        while (job := jobs.get()) is not None:
            while job is not None:
                last_act = job()
                # First to stand by again, then to tell: whoever is told may have the next job.
                job = self._next(jobs)
                if last_act is not None:
                    last_act()
                # It holds the result.
                last_act = None

    def _next(self, jobs: SimpleQueue[Job | None]) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._is_closed:
                jobs.put(None)
            else:
                self._idle.append(jobs)
            return None


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: Any) -> None:
    """Have `loop` call back from its own thread; one that was closed meanwhile has nobody who waits."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)


def succeed(outcome: asyncio.Future[T], result: T) -> None:
    """Have `result` where the outcome is awaited, if it still is."""
    if not outcome.done():
        outcome.set_result(result)


def fail(outcome: asyncio.Future[T], error: BaseException) -> None:
    """Raise `error` where the outcome is awaited, if it still is."""
    if not outcome.done():
        # A future can't hold StopIteration, and its caller would wait forever.
        outcome.set_exception(RuntimeError("StopIteration") if isinstance(error, StopIteration) else error)
