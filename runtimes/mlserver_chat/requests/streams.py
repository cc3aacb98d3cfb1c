"""Closing what was not read to its end."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """Yields `items` and closes them at the end of the block, also when the reader goes away in the middle.

    Without it an abandoned async generator runs its `finally` only when it is garbage-collected, and the work behind
    it (a generation, an upstream call that costs money) goes on until then.
    """
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
