"""A worker thread that computes, and the queue of requests that wait for it."""

import asyncio
import functools
import math
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mlserver_chat import NotReachable, RateLimited, UpstreamFailed
from mlserver_chat.limits import GenerationLimits
from mlserver_chat.requests.deadline import current_deadline
from mlserver_chat.requests.fairness import FairQueue

T = TypeVar("T")


@dataclass(eq=False)
class _Job(Generic[T]):
    """Work that waits for the thread or runs on it. `result` is cancelled if it is withdrawn."""

    key: Hashable
    work: Callable[[], T]
    result: Future[T] = field(default_factory=Future[T])


class Worker:
    """A thread that runs one job at a time, in the order of a `FairQueue`.

    Args:
        name: prefix of the thread's name.
    """

    def __init__(self, name: str):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: FairQueue[_Job[Any]] = FairQueue()
        self._mean = 0.0
        """Seconds that a recent job took on average."""

    def put(self, job: _Job[Any]) -> None:
        """Add a job to the queue."""
        with self._lock:
            self._waiting.put(job.key, job)
        self._thread.submit(self._run_next)

    def withdraw(self, job: _Job[Any]) -> bool:
        """Take a job out of the queue and cancel its result.

        Returns:
            Whether the job was still waiting. A job that has started goes on.
        """
        with self._lock:
            if not self._waiting.remove(job.key, job):
                return False
        job.result.cancel()
        return not job.result.set_running_or_notify_cancel()

    def expected_wait(self, jobs: int) -> int:
        """Estimate the seconds until so many jobs are done, at least 1."""
        return math.ceil(self._mean * jobs) or 1

    def close(self) -> None:
        """End the thread after the last job."""
        self._thread.shutdown(wait=False)

    def _run_next(self) -> None:
        with self._lock:
            try:
                job = self._waiting.take()
            except IndexError:  # a job was withdrawn
                return
        if not job.result.set_running_or_notify_cancel():
            return
        began = time.monotonic()
        try:
            job.result.set_result(job.work())
        except BaseException as error:
            job.result.set_exception(error)
        self._mean += (time.monotonic() - began - self._mean) / 8


class ModelQueue:
    """The queue of one model. Several models may share a worker.

    Args:
        worker: the thread that computes.
        name: the model's name in error messages.
        limits: how many requests may wait, and for how long.
    """

    def __init__(self, worker: Worker, name: str, limits: GenerationLimits):
        self._worker = worker
        self._name = name
        self._limits = limits
        self._jobs: set[Future[Any]] = set()
        """The results of the jobs that wait or run."""
        self._is_closed = False

    async def run(self, key: Hashable, work: Callable[[threading.Event], T]) -> T:
        """Run `work` on the worker thread, within the deadline of the request.

        Args:
            key: requests with different keys take turns.
            work: gets an event that is set when its result is no longer wanted. It should then end soon.

        Returns:
            The result of `work`.

        Raises:
            RateLimited: too many requests wait, or this one waited too long.
            NotReachable: the model is closed, or the deadline passed before the work began.
            UpstreamFailed: the deadline passed while the work ran.
        """
        self._admit()
        unwanted = threading.Event()
        job = _Job(key, functools.partial(work, unwanted))
        self._jobs.add(job.result)
        job.result.add_done_callback(self._jobs.discard)
        self._worker.put(job)
        result = asyncio.wrap_future(job.result)
        scope = None
        try:
            async with current_deadline().enforced() as scope:
                await asyncio.wait((result,), timeout=self._limits.queue_timeout)
                if not result.done() and self._worker.withdraw(job):
                    raise self._busy(f"kept the request waiting for {self._limits.queue_timeout:g} s")
                return await result
        except TimeoutError as error:
            if scope is None or not scope.expired():
                raise
            if self._worker.withdraw(job):
                raise NotReachable(f"the request's time ran out while it waited for model '{self._name}'") from error
            raise UpstreamFailed(f"the request's time ran out while model '{self._name}' worked on it") from error
        finally:
            unwanted.set()
            self._worker.withdraw(job)
            result.cancel()

    async def drain(self) -> None:
        """Reject new requests and wait for the running and waiting ones."""
        self._is_closed = True
        await asyncio.to_thread(wait, tuple(self._jobs))

    def _admit(self) -> None:
        if self._is_closed:
            raise NotReachable(f"model '{self._name}' is not ready")
        waiting = self._waiting()
        if waiting >= self._limits.max_queue:
            raise self._busy(f"has {waiting} requests waiting")

    def _waiting(self) -> int:
        """Count the requests that wait. At most one runs."""
        return sum(not result.running() for result in tuple(self._jobs))

    def _busy(self, reason: str) -> RateLimited:
        return RateLimited(f"model '{self._name}' {reason}", self._worker.expected_wait(self._waiting()))
