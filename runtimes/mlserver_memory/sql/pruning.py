"""Removes messages that are too old or too many, one conversation in each transaction."""

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, false, func, or_, select, update

from ..retention import REPLAY_SECONDS
from .schema import Tables


@dataclass(frozen=True)
class Pruning:
    """One pass over a store.

    `older_than` is in seconds since the epoch; without both limits, nothing goes.
    """

    tables: Tables
    namespace_id: str
    older_than: float | None
    max_messages: int | None

    def candidates(self, connection: Connection, after: str, limit: int, only: str | None = None) -> list[str]:
        """Ids of conversations that may have something to remove, in order, over `after`."""
        conversations = self.tables.conversations.c
        due: ColumnElement[bool] = false()
        if self.max_messages is not None:
            due = or_(due, conversations.messages > self.max_messages)
        if self.older_than is not None:
            due = or_(due, conversations.oldest < self.older_than)
        this = conversations.id == only if only is not None else conversations.id > after
        query = select(conversations.id).where(conversations.namespace_id == self.namespace_id, this, due)
        return [row.id for row in connection.execute(query.order_by(conversations.id).limit(limit))]

    def prune(self, connection: Connection, conversation: str, dry_run: bool) -> int:
        """Remove what is to go of one conversation; returns how many messages that is."""
        conversations, messages = self.tables.conversations.c, self.tables.messages.c
        # The conversation's row is the lock that appends wait for. SQL Server has no FOR UPDATE.
        query = select(conversations.last, conversations.system, conversations.messages).where(
            conversations.id == conversation
        )
        query = query.with_for_update().with_hint(self.tables.conversations, "WITH (UPDLOCK)", "mssql")
        row = connection.execute(query).first()
        if row is None:
            return 0
        mine = messages.conversation == conversation
        cut = 0
        if self.max_messages is not None and row.messages > self.max_messages:
            cut = int(row.last) - self.max_messages
        going = self._going(cut)
        removable = and_(mine, going)
        first_kept = connection.scalar(select(func.min(messages.sequence)).where(mine, ~going))
        if first_kept is not None:
            removable = and_(removable, messages.sequence != row.system)
        if dry_run:
            return int(connection.scalar(select(func.count()).where(removable)) or 0)
        removed = connection.execute(delete(self.tables.messages).where(removable)).rowcount
        if first_kept is None:
            forget_conversation(connection, self.tables, conversation)
            return removed
        oldest = connection.scalar(select(func.min(messages.created)).where(mine, messages.sequence >= first_kept))
        connection.execute(
            update(self.tables.conversations)
            .where(conversations.id == conversation)
            .values(messages=conversations.messages - removed, oldest=oldest)
        )
        self._forget_keys(connection, conversation, int(first_kept))
        return removed

    def long_deleted(self, connection: Connection) -> list[str]:
        """Ids of conversations that were deleted long ago and whose keys are still known, of all namespaces."""
        query = select(self.tables.appends.c.conversation).where(self._stale).distinct()
        return [row.conversation for row in connection.execute(query)]

    def forget_deleted(self, connection: Connection, conversation: str) -> None:
        """Forget the keys of appends to a conversation that was deleted long ago."""
        mine = self.tables.appends.c.conversation == conversation
        connection.execute(delete(self.tables.appends).where(mine, self._stale))

    @property
    def _stale(self) -> ColumnElement[bool]:
        appends = self.tables.appends.c
        return and_(appends.last == 0, appends.created < time.time() - REPLAY_SECONDS)

    def _going(self, cut: int) -> ColumnElement[bool]:
        messages = self.tables.messages.c
        if self.older_than is None:
            return messages.sequence <= cut
        return or_(messages.sequence <= cut, messages.created < self.older_than)

    def _forget_keys(self, connection: Connection, conversation: str, first_kept: int) -> None:
        appends = self.tables.appends.c
        stale = and_(
            appends.conversation == conversation,
            appends.last < first_kept,
            appends.created < time.time() - REPLAY_SECONDS,
        )
        connection.execute(delete(self.tables.appends).where(stale))


def forget_conversation(connection: Connection, tables: Tables, conversation: str) -> None:
    """Remove a conversation's row. The keys of its appends stay: a replay of what was deleted stores nothing and finds
    nothing, and sequences begin anew."""
    appends = tables.appends.c
    connection.execute(delete(tables.conversations).where(tables.conversations.c.id == conversation))
    connection.execute(update(tables.appends).where(appends.conversation == conversation).values(last=0, system=0))
