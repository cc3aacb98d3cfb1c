"""`MemoryStore` over SQLAlchemy Core."""

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Executable, delete
from sqlalchemy.exc import IntegrityError

from mlserver_chat import (
    AppendKey,
    ConversationInfo,
    InvalidInput,
    Message,
    NotReachable,
    StoredMessage,
    StoreStats,
    Window,
)
from mlserver_chat.requests.identity import hashed

from ..naming import conversation_id
from . import listing
from .database import Database
from .dialects import appender_for
from .faults import DamagedData
from .messages import NewMessages, stored_messages
from .migrations import MIGRATIONS, migrate, schema_version
from .pruning import Pruning, forget_conversation
from .schema import make_tables
from .windows import Windows

_PAGE = 500
"""Conversations a page of `conversations` and `prune`."""
_RACES = 5
"""Tries of an append that met another one of the same conversation."""


class SqlStore:
    """Conversations in any database that SQLAlchemy knows.

    Args:
        url: SQLAlchemy URL.
        options: options of `create_engine`.
        prefix: what the tables' names begin with.
        schema: the tables' schema; None is the connection's own.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any] | None = None, prefix: str = "memory_", schema: str | None = None
    ):
        self._tables = make_tables(prefix, schema)
        self._database = Database(url, dict(options or {}), partial(migrate, self._tables))
        self._appender = appender_for(self._database.dialect, self._tables)
        self._windows = Windows(self._tables)
        self._namespace = ""

    @property
    def place(self) -> str:
        """Kind and place of the database, without user and password."""
        return self._database.place

    def scope(self, namespace: str) -> "SqlStore":
        """The same database seen from another namespace."""
        scoped = object.__new__(SqlStore)
        scoped.__dict__.update(self.__dict__, _namespace=namespace)
        return scoped

    async def namespaces(self) -> AsyncIterator[str]:
        """All namespaces."""
        rows = await self._database.read(partial(_rows, query=listing.namespaces(self._tables)))
        for row in rows:
            yield row.namespace or ""

    async def schema(self) -> tuple[int, int]:
        """Version of the schema that is there, 0 for none, and the version that `open` would make of it."""
        look = partial(schema_version, tables=self._tables)
        return await self._database.look(look) if self._database.exists else 0, len(MIGRATIONS)

    async def open(self) -> None:
        """Reach the database and bring its schema up to date."""
        await self._database.open()

    async def append(
        self,
        key: AppendKey,
        messages: Sequence[Message],
        size: int,
        provenance: Mapping[str, str] | None = None,
        created: float | None = None,
    ) -> Window:
        """Append in one transaction. The same key again stores nothing."""
        try:
            new = NewMessages.of(
                self._id(key.memory_id),
                self._namespace,
                key.memory_id,
                key.digest,
                messages,
                provenance or {},
                created,
                size,
            )
            return await self._append(new)
        except UnicodeError as error:
            raise InvalidInput("the memory store can't hold this text") from error

    async def window(self, memory_id: str, size: int) -> Window:
        """Return the newest `size` messages."""
        conversation = self._id(memory_id)
        return await self._database.read(lambda connection: self._windows.newest(connection, conversation, size))

    async def read(self, memory_id: str, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        """Return up to `limit` messages whose sequence is over `after`."""
        query = listing.page(self._tables, self._id(memory_id), after, limit)
        return await self._database.read(lambda connection: stored_messages(connection.execute(query)))

    async def conversations(self) -> AsyncIterator[ConversationInfo]:
        """All conversations, in the order of their hashes."""
        after = ""
        while True:
            query = listing.conversations(self._tables, hashed(self._namespace), after, _PAGE)
            rows = await self._database.read(partial(_rows, query=query))
            for row in rows:
                yield ConversationInfo(row.memory_id, int(row.messages), row.updated)
            if len(rows) < _PAGE:
                return
            after = rows[-1].id

    async def delete(self, memory_id: str) -> int:
        """Remove a conversation. The keys of its appends stay, so a replay doesn't restore it."""
        conversation, messages = self._id(memory_id), self._tables.messages

        def work(connection: Connection) -> int:
            # The conversation's row first: it is the lock that appends wait for.
            forget_conversation(connection, self._tables, conversation)
            return connection.execute(delete(messages).where(messages.c.conversation == conversation)).rowcount

        return await self._database.write(work)

    async def prune(
        self,
        older_than: float | None = None,
        max_messages: int | None = None,
        memory_id: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Remove messages that are too old or too many, one conversation in each transaction."""
        pruning = Pruning(self._tables, hashed(self._namespace), older_than, max_messages)
        only = None if memory_id is None else self._id(memory_id)
        removed, page = 0, [""]
        while page:
            page = await self._database.read(partial(pruning.candidates, after=page[-1], limit=_PAGE, only=only))
            for conversation in page:
                removed += await self._database.write(
                    partial(pruning.prune, conversation=conversation, dry_run=dry_run)
                )
            page = [] if only is not None else page
        if not dry_run:
            # Looked for without holding up who writes.
            for conversation in await self._database.read(pruning.long_deleted):
                await self._database.write(partial(pruning.forget_deleted, conversation=conversation))
        return removed

    async def stats(self) -> StoreStats:
        """Return the numbers of conversations and messages."""
        query = listing.stats(self._tables, hashed(self._namespace))
        try:
            (row,) = await self._database.read(partial(_rows, query=query))
        except NotReachable as error:
            return StoreStats(0, 0, reachable=False, detail=self._database.failure or str(error))
        return StoreStats(int(row[0]), int(row[1]))

    async def aclose(self) -> None:
        """Finish running transactions and close the pool."""
        await self._database.aclose()

    async def _append(self, new: NewMessages) -> Window:
        for _ in range(_RACES):
            try:
                return await self._database.append(
                    lambda connection: self._appender.append(connection, new), self._appender.is_atomic
                )
            except IntegrityError:
                # A replay; or another first append to the conversation won, and the next try finds its row.
                replayed = await self._database.read(
                    lambda connection: self._windows.replayed(connection, new.conversation, new.digest, new.size)
                )
                if replayed is not None:
                    return replayed
        # No other append can have won so often: the conversation's counters contradict its messages.
        raise DamagedData()

    def _id(self, memory_id: str) -> str:
        return conversation_id(self._namespace, memory_id)


def _rows(connection: Connection, query: Executable) -> Sequence[Any]:
    return connection.execute(query).all()
