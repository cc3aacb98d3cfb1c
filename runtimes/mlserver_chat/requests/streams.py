"""Closes streams that were not read to their end."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """Yield `items`, and close them at the end of the block.

    An abandoned async generator runs its `finally` only when it is garbage-collected. Until then its work goes on, such
    as a generation or an upstream call that costs money.
    """
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
