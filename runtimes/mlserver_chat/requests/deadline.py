"""The time left for a request.

A caller sets it in the header `x-request-timeout-ms`, in milliseconds for the whole call. Calls to steps and upstreams
carry the same header with the time that is left then.
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
"""Header with the milliseconds left for the whole call, an integer of at least 0."""

_MILLISECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True)
class Deadline:
    """The time at which a caller stops waiting for the answer.

    Args:
        at: the time in seconds on the clock `time.monotonic`; infinity for no deadline.
    """

    at: float = math.inf

    @staticmethod
    def after(seconds: float) -> "Deadline":
        """Return the deadline `seconds` from now."""
        return Deadline(time.monotonic() + seconds)

    @staticmethod
    def of_headers(headers: Mapping[str, str]) -> "Deadline":
        """Return the deadline that a request's headers set.

        Args:
            headers: the headers, with lower-case names.

        Returns:
            A deadline that never passes if the header is missing.

        Raises:
            InvalidInput: the header's value is not an integer of at least 0.
        """
        value = headers.get(DEADLINE_HEADER)
        if value is None:
            return Deadline()
        if not _MILLISECONDS.fullmatch(value):
            raise InvalidInput(f"header '{DEADLINE_HEADER}' is not a whole number of milliseconds")
        return Deadline.after(int(value) / 1000)

    @property
    def left(self) -> float:
        """Seconds left: 0 after the deadline, infinity without one."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left == 0

    def sooner(self, seconds: float) -> "Deadline":
        """Return the earlier one of this deadline and `seconds` from now."""
        return min(self, Deadline.after(seconds), key=lambda each: each.at)

    def headers(self) -> dict[str, str]:
        """Return the header for a call that is made now, or no header without a deadline."""
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
    """Return the deadline of the current request. Outside of a request it never passes."""
    return _CURRENT.get()


@contextmanager
def deadline_scope(deadline: Deadline) -> Generator[None]:
    """Make `deadline` the current one for the block and for the tasks that it starts.

    An async generator must not yield inside the block, because its context is that of its reader.
    """
    token = _CURRENT.set(deadline)
    try:
        yield
    finally:
        _CURRENT.reset(token)
