"""Timers for many short waits of one length, most of which end before their timer."""

import asyncio
import itertools
from collections.abc import Callable


class CoarseTimers:
    """Calls back after a delay that is the same for all timers. One timer of the event loop serves them all, because
    making and cancelling one for each request would cost more than the rest of the guard.

    Args:
        delay: seconds; a callback may come a quarter later.
    """

    def __init__(self, delay: float):
        self._delay = delay
        self._numbers = itertools.count()
        self._pending: dict[int, tuple[float, Callable[[], object]]] = {}
        """The pending timers, the next first."""
        self._is_sweeping = False

    def start(self, callback: Callable[[], object]) -> int:
        """Start a timer, and return the number that cancels it."""
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        self._pending[number] = (loop.time() + self._delay, callback)
        if not self._is_sweeping:
            self._is_sweeping = True
            loop.call_later(self._delay / 4, self._sweep, loop)
        return number

    def is_pending(self, number: int) -> bool:
        """Whether a timer has neither called back nor been cancelled."""
        return number in self._pending

    def cancel(self, number: int) -> None:
        """Cancel a timer, unless it has called back."""
        self._pending.pop(number, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        due = list(itertools.takewhile(lambda item: item[1][0] <= now, self._pending.items()))
        for number, (_, callback) in due:
            del self._pending[number]
            callback()
        self._is_sweeping = bool(self._pending)
        if self._is_sweeping:
            loop.call_later(self._delay / 4, self._sweep, loop)
