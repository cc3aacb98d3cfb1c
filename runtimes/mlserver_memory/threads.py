"""Threads for calls that block."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mlserver_chat import NotReachable

T = TypeVar("T")


class Threads:
    """Up to `most` threads."""

    def __init__(self, most: int, name: str):
        self._executor = ThreadPoolExecutor(most, name)
        self._is_closed = False

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run `call` and return its result. It finishes even if the caller is cancelled."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(call, *arguments)))

    def submit(self, call: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Run `call` soon.

        Raises:
            NotReachable: the threads were closed.
        """
        if self._is_closed:
            raise NotReachable("the memory store was closed")
        return self._executor.submit(call, *arguments)

    async def aclose(self) -> None:
        """Finish what was submitted, and end the threads."""
        self._is_closed = True
        await asyncio.to_thread(self._executor.shutdown)
