"""Group commit: SQLite has one writer at a time, so the appends that wait for it are committed together."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from sqlalchemy import Connection

from mlserver_chat import NotReachable

from ..threads import Threads
from .faults import DamagedData

_MOST = 100
"""Appends in one transaction. Later ones, and other processes, shouldn't wait for long."""

Work = Callable[[Connection], Any]


class _Waiting(NamedTuple):
    """Work, and the future that its caller awaits."""

    work: Work
    outcome: "Future[Any]"


class GroupCommit:
    """Runs all work that arrived during a transaction in the next one, so that they share a sync to disk.

    No caller is answered before the commit. If a group fails, each of its members runs again in a transaction of its
    own, so that work that fails doesn't spoil other callers' work.

    Args:
        transaction: runs work in a transaction and has committed it when it returns.
        writer: the writing thread.
    """

    def __init__(self, transaction: Callable[[Work], Any], writer: Threads):
        self._transaction = transaction
        self._writer = writer
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()

    async def run(self, work: Work) -> Any:
        """Run `work` and return its result. It finishes even if the caller is cancelled."""
        outcome: Future[Any] = Future()
        with self._lock:
            self._waiting.append(_Waiting(work, outcome))
            is_first = len(self._waiting) == 1
        if is_first:
            try:
                self._writer.submit(self._commit_waiting)
            except Exception as error:
                # Callers that came in the meantime relied on this one.
                for each in self._take():
                    each.outcome.set_exception(error)
        return await asyncio.shield(asyncio.wrap_future(outcome))

    def _take(self) -> list[_Waiting]:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return waiting

    def _commit_waiting(self) -> None:
        waiting = self._take()
        for start in range(0, len(waiting), _MOST):
            self._commit(waiting[start : start + _MOST])

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            results = self._transaction(lambda connection: [each.work(connection) for each in group])
        except BaseException as error:
            concerns_all = isinstance(error, NotReachable) and not isinstance(error, DamagedData)
            if len(group) > 1 and not concerns_all:
                for each in group:
                    self._commit([each])
                return
            # The whole group waited for a lock or a server; don't wait again for each of its members.
            for each in group:
                each.outcome.set_exception(error)
            return
        for each, result in zip(group, results, strict=True):
            each.outcome.set_result(result)
