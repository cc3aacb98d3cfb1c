"""Removes old messages in the background."""

import asyncio
import contextlib
import logging
import random
import time

from mlserver_chat import ChatError, MemoryStore

from .settings import WindowSettings

logger = logging.getLogger("mlserver.memory")

REPLAY_SECONDS = 7 * 24 * 3600
"""How long the key of an append is known at least, also when its messages were removed: as long as Kafka by default
keeps a request that it could deliver again."""


class Retention:
    """Prunes a store every `prune_interval`, in every namespace, where the settings have a limit.

    Any number of replicas may do so at once. Replicas that start together don't prune together.
    """

    def __init__(self, store: MemoryStore, config: WindowSettings):
        self._store = store
        self._config = config
        self._task: asyncio.Task[None] | None = None
        if config.ttl is not None or config.max_messages is not None:
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop; a removal that has begun is finished by the store."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            # Spreads replicas out; nothing secret depends on it.
            await asyncio.sleep(self._config.prune_interval * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                removed = await self.prune()
            except Exception as error:
                # The next one may go well; the text of an unforeseen exception may hold what nobody should read.
                reason = str(error) if isinstance(error, ChatError) else type(error).__name__
                logger.warning("pruning was put off: %s", reason)
                continue
            if removed:
                logger.info("pruned %d messages", removed)

    async def prune(self) -> int:
        """One removal; returns how many messages went."""
        older_than = None if self._config.ttl is None else time.time() - self._config.ttl
        removed = 0
        async for namespace in self._store.namespaces():
            removed += await self._store.scope(namespace).prune(older_than, self._config.max_messages)
        return removed
