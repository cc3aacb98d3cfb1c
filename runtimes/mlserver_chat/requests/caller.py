"""Cancels the work for a caller that has hung up.

MLServer doesn't cancel a unary REST call whose client hangs up. The server's guard notices it and calls `Caller.leave`.
Work that costs money or occupies a model runs inside `unless_left`.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, TypeVar

from ..errors import CallerLeft

T = TypeVar("T")


class Caller:
    """The client of one request."""

    @cached_property
    def _left(self) -> asyncio.Event:
        # Every request has a caller, and few wait for it to leave.
        return asyncio.Event()

    @property
    def has_left(self) -> bool:
        """Whether the client has hung up or cancelled its call."""
        return self._left.is_set()

    def leave(self) -> None:
        """Note that the client has hung up, and cancel the work inside `unless_left`."""
        self._left.set()

    async def unless_left(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`, or cancel it when the client leaves.

        Raises:
            CallerLeft: the client has left.
        """
        running = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait((running, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise CallerLeft
            return running.result()
        finally:
            running.cancel()
            leaving.cancel()
            await asyncio.gather(running, leaving, return_exceptions=True)


_CURRENT: ContextVar[Caller | None] = ContextVar("caller", default=None)


def current_caller() -> Caller | None:
    """Return the caller of the current request, or None if no guard watches it."""
    return _CURRENT.get()


async def unless_left(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, or cancel it when the caller of the current request leaves.

    Raises:
        CallerLeft: the caller has left.
    """
    caller = current_caller()
    return await (work if caller is None else caller.unless_left(work))


@contextmanager
def caller_scope(caller: Caller) -> Generator[None]:
    """Make `caller` the current one for the block and for the tasks that it starts."""
    token = _CURRENT.set(caller)
    try:
        yield
    finally:
        _CURRENT.reset(token)
