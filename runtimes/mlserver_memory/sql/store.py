"""`MemoryStore` over SQLAlchemy Core."""

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Executable
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
from .database import Database
from .faults import DamagedData
from .migrations import MIGRATIONS, migrate, schema_version
from .pruning import Pruning, forget_conversation
from .rows import Append, newest_window, stored_messages
from .schema import make_tables
from .statements import Statements

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
        self._statements = Statements(self._tables)
        self._database = Database(url, dict(options or {}), partial(migrate, self._tables))
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
        rows = await self._database.read(partial(_rows, query=self._statements.namespaces, values={}))
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
        """Append in one transaction, once a key."""
        try:
            identity, digest = self._id(key.memory_id), key.digest
            known = dict(provenance or {})
            append = Append(
                self._statements, identity, self._namespace, key.memory_id, digest, messages, known, size, created
            )
            return await self._append(append)
        except UnicodeError:
            raise InvalidInput("the memory store can't hold this text") from None

    async def window(self, memory_id: str, size: int) -> Window:
        """The newest `size` messages."""
        identity = self._id(memory_id)
        return await self._database.query(lambda execute: newest_window(execute, self._statements, identity, size))

    async def read(self, memory_id: str, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        """A page of messages."""
        values = {"p_id": self._id(memory_id), "p_after": after, "p_limit": limit}
        rows = await self._database.read(partial(_rows, query=self._statements.page, values=values))
        return stored_messages(rows)

    async def conversations(self) -> AsyncIterator[ConversationInfo]:
        """All conversations, in the order of their hashes."""
        query, after = self._statements.conversations, ""
        while True:
            values = {"p_namespace": hashed(self._namespace), "p_after": after, "p_limit": _PAGE}
            rows = await self._database.read(partial(_rows, query=query, values=values))
            for row in rows:
                yield ConversationInfo(row.memory_id, int(row.messages), row.updated)
            if len(rows) < _PAGE:
                return
            after = rows[-1].id

    async def delete(self, memory_id: str) -> int:
        """Remove a conversation; the keys of its appends stay known, so that a replay doesn't bring it back."""
        identity = self._id(memory_id)

        def work(connection: Connection) -> int:
            # The conversation's row first: it is the lock that appends wait for.
            forget_conversation(connection, self._tables, identity)
            return connection.execute(self._statements.delete_messages, {"p_id": identity}).rowcount

        return await self._database.write(work)

    async def prune(
        self,
        older_than: float | None = None,
        max_messages: int | None = None,
        memory_id: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Remove what is too old or too much, a conversation a transaction."""
        pruning = Pruning(self._tables, hashed(self._namespace), older_than, max_messages)
        only = None if memory_id is None else self._id(memory_id)
        removed, page = 0, [""]
        while page:
            page = await self._database.read(partial(pruning.candidates, after=page[-1], limit=_PAGE, only=only))
            for identity in page:
                removed += await self._database.write(partial(pruning.prune, identity=identity, dry_run=dry_run))
            page = [] if only is not None else page
        if not dry_run:
            # Looked for without holding up who writes.
            for identity in await self._database.read(pruning.long_deleted):
                await self._database.write(partial(pruning.forget_deleted, identity=identity))
        return removed

    async def stats(self) -> StoreStats:
        """What the store holds."""
        values = {"p_namespace": hashed(self._namespace)}
        try:
            (row,) = await self._database.read(partial(_rows, query=self._statements.stats, values=values))
        except NotReachable as error:
            return StoreStats(0, 0, reachable=False, detail=self._database.failure or str(error))
        return StoreStats(int(row[0]), int(row[1]))

    async def aclose(self) -> None:
        """Finish running transactions and close the pool."""
        await self._database.aclose()

    async def _append(self, append: Append) -> Window:
        for _ in range(_RACES):
            try:
                return await self._database.append(append.run)
            except IntegrityError:
                # A replay; or two first messages of one conversation at once, and then the next try finds its row.
                replayed = await self._database.query(append.replayed)
                if replayed is not None:
                    return replayed
        # No other append can have won so often: the conversation's counters contradict its messages.
        raise DamagedData()

    def _id(self, memory_id: str) -> str:
        return conversation_id(self._namespace, memory_id)


def _rows(connection: Connection, query: Executable, values: Mapping[str, Any]) -> Sequence[Any]:
    return connection.execute(query, values).all()
