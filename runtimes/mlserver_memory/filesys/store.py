"""`MemoryStore` over files, one a conversation."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from mlserver_chat import AppendKey, ConversationInfo, Message, NotReachable, StoredMessage, StoreStats, Window
from mlserver_chat.requests.identity import hashed

from ..naming import conversation_id
from ..threads import Threads
from .conversation import Append, append, newest_window
from .durability import Durability
from .files import make_folder, reading, remove, replace, writing
from .keys import KeyCache
from .pruning import is_due, pruned, rewritten

logger = logging.getLogger("mlserver.memory")

T = TypeVar("T")

_THREADS = 16
_PAGE = 100
"""Files a page of `conversations`."""


class FileSysStore:
    """Conversations in files, one each, under hashed names.

    Every access holds the file's lock (`flock`), exclusive to write and shared to read, so that any number of stores
    in any number of processes of one machine may share a folder.

    Args:
        root: the folder; made when absent.
        durability: when a message reaches the disk itself: before it is answered for, within a tenth of a second, or
            when the operating system likes.
    """

    def __init__(self, root: Path, durability: Literal["commit", "batch", "none"] = "commit"):
        self._root = root
        self._durability = Durability(durability)
        self._namespace = ""
        self._threads = Threads(_THREADS, "memory-files")
        self._keys = KeyCache()
        self._damage: list[str] = []

    def scope(self, namespace: str) -> "FileSysStore":
        """The same folder seen from another namespace."""
        scoped = object.__new__(FileSysStore)
        scoped.__dict__.update(self.__dict__, _namespace=namespace)
        return scoped

    async def namespaces(self) -> AsyncIterator[str]:
        """All namespaces."""
        for name in await self._run(self._namespaces):
            yield name

    async def open(self) -> None:
        """Make the folder."""
        logger.info("memory is stored in %s", self._root)
        await self._run(lambda: make_folder(self._folder))

    async def append(
        self,
        key: AppendKey,
        messages: Sequence[Message],
        size: int,
        provenance: Mapping[str, str] | None = None,
        created: float | None = None,
    ) -> Window:
        """Append one record, once a key."""
        path, names = self._path(key.memory_id), (self._namespace, key.memory_id)
        new = Append(key.digest, [message.to_history() for message in messages], dict(provenance or {}), created)

        def write() -> Window:
            while True:
                with writing(path, self._report) as records:
                    window = append(path, records, names, new, size, self._durability, self._keys)
                    # What was written to a file that somebody removed meanwhile is lost.
                    if records.is_at(path):
                        return window

        return await self._run(write)

    async def window(self, memory_id: str, size: int) -> Window:
        """The newest `size` messages, read from the end of the file."""

        def read() -> Window:
            with reading(self._path(memory_id), self._report) as records:
                return Window() if records is None else newest_window(records, size)

        return await self._run(read)

    async def read(self, memory_id: str, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        """A page of messages."""

        def read() -> list[StoredMessage]:
            found: list[StoredMessage] = []
            with reading(self._path(memory_id), self._report) as records:
                for record in records.oldest_first(records.offset_after(after)) if records is not None else ():
                    found += [message for message in record.stored() if message.sequence > after]
                    if len(found) >= limit:
                        break
            return found[:limit]

        return await self._run(read)

    async def conversations(self) -> AsyncIterator[ConversationInfo]:
        """All conversations, in the order of their hashes."""
        paths = await self._run(self._paths)
        for start in range(0, len(paths), _PAGE):
            page = paths[start : start + _PAGE]
            for info in await self._run(partial(self._infos, page)):
                if info is not None:
                    yield info

    async def delete(self, memory_id: str) -> int:
        """Remove a conversation; the keys of its appends stay known, so that a replay doesn't bring it back."""
        return await self._run(lambda: self._prune(self._path(memory_id)))

    async def prune(
        self,
        older_than: float | None = None,
        max_messages: int | None = None,
        memory_id: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Remove what is too old or too much, a file at a time."""
        if older_than is None and max_messages is None:
            return 0
        paths = await self._run(self._paths) if memory_id is None else [self._path(memory_id)]
        removed = 0
        for path in paths:
            removed += await self._run(partial(self._prune, path, older_than, max_messages, dry_run))
        return removed

    async def stats(self) -> StoreStats:
        """What the store holds, and the damage met since it was opened."""
        try:
            counts = [info.messages async for info in self.conversations()]
        except NotReachable as error:
            return StoreStats(0, 0, reachable=False, detail=str(error))
        return StoreStats(len(counts), sum(counts), detail="; ".join(self._damage))

    async def aclose(self) -> None:
        """Finish what was begun."""
        await self._threads.aclose()
        await asyncio.to_thread(self._durability.close)

    @property
    def _folder(self) -> Path:
        return self._root / (hashed(self._namespace) if self._namespace else "default")

    def _path(self, memory_id: str) -> Path:
        name = conversation_id(self._namespace, memory_id)
        return self._folder / name[:2] / f"{name}.log"

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("??/*.log"))

    def _namespaces(self) -> list[str]:
        """Read from the first readable conversation of each folder."""
        found: list[str] = []
        for folder in sorted(self._root.glob("*")):
            for path in folder.glob("??/*.log"):
                with reading(path, self._report) as records:
                    header = records.header() if records is not None else None
                if header is not None:
                    found.append(header.namespace)
                    break
        return found

    def _infos(self, paths: Sequence[Path]) -> list[ConversationInfo | None]:
        return [self._info(path) for path in paths]

    def _info(self, path: Path) -> ConversationInfo | None:
        with reading(path, self._report) as records:
            header = records.header() if records is not None else None
            newest = next(records.newest_first(), None) if records is not None else None
            if header is None or newest is None or not newest.total:
                return None
            return ConversationInfo(header.memory_id, newest.total, newest.created)

    def _prune(
        self,
        path: Path,
        older_than: float | None = None,
        max_messages: int | None = None,
        dry_run: bool = False,
    ) -> int:
        with reading(path, self._report) as records:
            if records is None or not is_due(records, older_than, max_messages):
                return 0
        with writing(path, self._report) as records:
            header = records.header()
            if header is None and (older_than is not None or max_messages is not None):
                # Without its first line nobody knows whose it is: it stays for an operator, or for `delete`.
                return 0
            removed, left = pruned(records, older_than, max_messages)
            if dry_run:
                return removed
            if header is None or not left:
                remove(path)
            elif removed:
                replace(path, rewritten(header, left))
        return removed

    def _report(self, path: Path, what: str) -> None:
        found = f"{what} of {path.name}"
        if found not in self._damage:
            logger.error("the memory store found %s", found)
            self._damage.append(found)

    async def _run(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return work()
            except OSError as error:
                reason = error.strerror or type(error).__name__
                logger.error("the memory store in %s failed: %s", self._root, reason)
                raise NotReachable(f"the memory store can't be used: {reason}") from error

        return await self._threads.run(guarded)
