"""The one writer that SQLite can have at a time: what waits for it is committed together."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mlserver_chat import NotReachable

from ..threads import Threads, fail, succeed, tell
from .direct import Execute, Work
from .faults import DamagedData

_MOST = 100
"""Appends a transaction: what comes after them, other processes included, shouldn't wait for long."""


class _Waiting(NamedTuple):
    """Work, and where its caller waits for the outcome."""

    work: Work[Any]
    outcome: asyncio.Future[Any]


class GroupCommit:
    """Runs in one transaction whatever came while the one before it was under way, so that a sync to disk is shared.

    Nobody is answered before the commit. Work that fails spoils nobody else's: what failed together is done again,
    each in a transaction of its own.

    Args:
        transaction: runs work in a transaction, and has committed it when it returns.
        writer: the thread of all that writes.
    """

    def __init__(self, transaction: Callable[[Work[Any]], Any], writer: Threads):
        self._transaction = transaction
        self._writer = writer
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()

    async def run(self, work: Work[Any]) -> Any:
        """Run `work`; a cancelled caller leaves it to finish."""
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append(_Waiting(work, outcome))
            is_first = len(self._waiting) == 1
        if is_first:
            try:
                self._writer.submit(self._commit_waiting)
            except Exception as error:
                # Who came meanwhile relied on this.
                waiting = self._taken()
                _tell(waiting, [error] * len(waiting))
        return await outcome

    def _taken(self) -> list[_Waiting]:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return waiting

    def _commit_waiting(self) -> None:
        waiting = self._taken()
        for start in range(0, len(waiting), _MOST):
            self._commit(waiting[start : start + _MOST])

    def _commit(self, group: Sequence[_Waiting]) -> None:
        def everything(execute: Execute) -> list[Any]:
            return [each.work(execute) for each in group]

        try:
            results = self._transaction(everything)
        except BaseException as error:
            concerns_all = isinstance(error, NotReachable) and not isinstance(error, DamagedData)
            if len(group) > 1 and not concerns_all:
                for each in group:
                    self._commit([each])
                return
            # The whole group waited for a lock or a server; don't wait again for each of its members.
            results = [error] * len(group)
        _tell(group, results)


def _tell(group: Sequence[_Waiting], results: Sequence[Any]) -> None:
    """Wake each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for each, result in zip(group, results, strict=True):
        by_loop.setdefault(each.outcome.get_loop(), []).append((each.outcome, result))
    for loop, outcomes in by_loop.items():
        tell(loop, _settle, outcomes)


def _settle(outcomes: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for outcome, result in outcomes:
        if isinstance(result, BaseException):
            fail(outcome, result)
        else:
            succeed(outcome, result)
