"""How long a request may still take.

A caller says it in the header `x-request-timeout-ms`: milliseconds left for the whole call. Every step and every
upstream call subtracts what it used and hands the rest on in the same header.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ..errors import InvalidInput

DEADLINE_HEADER = "x-request-timeout-ms"
"""Milliseconds that are left for the whole call, a whole number from 0 on."""

_MILLISECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True)
class Deadline:
    """A moment after which nobody waits for the answer.

    Args:
        at: the moment, on the clock of `time.monotonic`, in seconds; infinity without a deadline.
    """

    at: float = math.inf

    @staticmethod
    def after(seconds: float) -> "Deadline":
        """The deadline `seconds` from now."""
        return Deadline(time.monotonic() + seconds)

    @staticmethod
    def of_headers(headers: Mapping[str, str]) -> "Deadline":
        """The deadline that a request's headers (lower-case names) ask for; none without the header.

        Raises:
            InvalidInput: the header isn't a whole number from 0 on.
        """
        value = headers.get(DEADLINE_HEADER)
        if value is None:
            return Deadline()
        if not _MILLISECONDS.fullmatch(value):
            raise InvalidInput(f"header '{DEADLINE_HEADER}' is not a whole number of milliseconds")
        return Deadline.after(int(value) / 1000)

    @property
    def left(self) -> float:
        """Seconds left; 0 once it has passed, infinity without a deadline."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it has passed."""
        return self.left == 0

    def sooner(self, seconds: float) -> "Deadline":
        """This deadline, or `seconds` from now if that is sooner."""
        return min(self, Deadline.after(seconds), key=lambda each: each.at)

    def headers(self) -> dict[str, str]:
        """The header for a call made now under this deadline; none without a deadline."""
        return {} if math.isinf(self.at) else {DEADLINE_HEADER: str(int(self.left * 1000))}

    @asynccontextmanager
    async def enforced(self) -> AsyncGenerator[asyncio.Timeout]:
        """Cancel the block and raise TimeoutError once the deadline has passed.

        Yields the `asyncio.Timeout`: its `expired()` tells this deadline from a TimeoutError of the block's own.
        """
        async with asyncio.timeout(None if math.isinf(self.at) else self.left) as scope:
            yield scope


_NEVER = Deadline()
_CURRENT: ContextVar[Deadline] = ContextVar("deadline", default=_NEVER)


def current_deadline() -> Deadline:
    """The deadline of the request that is being answered; one that never passes outside of a request."""
    return _CURRENT.get()


@contextmanager
def deadline_scope(deadline: Deadline) -> Generator[None]:
    """While the block runs, `current_deadline` is `deadline`.

    Don't yield from an async generator inside the block: its context is the reader's.
    """
    token = _CURRENT.set(deadline)
    try:
        yield
    finally:
        _CURRENT.reset(token)
