"""Reading windows."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, Connection, String, bindparam, exists, select, union_all

from mlserver_chat import Window

from .messages import stored_messages
from .schema import Tables, message_columns


class Windows:
    """The statements that read windows. Each is one snapshot of the database.

    Values bound by name begin with `p_`. A window is a range of the primary key that ends with ORDER BY and LIMIT or
    lies between two bounds: where one conversation has most messages of a store, PostgreSQL would otherwise read them
    all.
    """

    def __init__(self, tables: Tables):
        conversations, messages, appends = tables.conversations.c, tables.messages.c, tables.appends.c
        columns, conversation = message_columns(tables), bindparam("p_conversation", type_=String)
        size = bindparam("p_size", type_=BigInteger)
        mine = messages.conversation == conversation

        this = conversations.id == conversation
        after = select(conversations.last - size).where(this).scalar_subquery()
        older = select(conversations.system).where(this, conversations.system <= conversations.last - size)
        newest = select(*columns).where(mine, messages.sequence > after).order_by(messages.sequence.desc()).limit(size)
        self._newest = union_all(
            select(newest.subquery()),
            select(*columns).where(mine, messages.sequence == older.scalar_subquery()),
        )

        key = appends.conversation == conversation, appends.digest == bindparam("p_digest")
        self._ends = select(appends.last, appends.system).where(*key)
        until = bindparam("p_until", type_=BigInteger)
        # A deleted conversation has 0 for `last` in its keys. Its successor's messages are no part of the window.
        still_there = exists().where(*key, appends.last == until)
        self._up_to = union_all(
            select(*columns).where(
                mine, messages.sequence > bindparam("p_after"), messages.sequence <= until, still_there
            ),
            select(*columns).where(mine, messages.sequence == bindparam("p_system"), still_there),
        )

    def newest(self, connection: Connection, conversation: str, size: int) -> Window:
        """Return the newest `size` messages of a conversation, and the system message if it is older."""
        rows = connection.execute(self._newest, {"p_conversation": conversation, "p_size": size}).all()
        return _window(rows, max((int(row[0]) for row in rows), default=0) - size)

    def up_to(self, connection: Connection, conversation: str, digest: str, ends: tuple[int, int], size: int) -> Window:
        """Return the `size` messages up to those of an append, and the system message if it is older.

        Args:
            digest: key of the append.
            ends: sequences of its last message and of the newest system message then, 0 for none.
        """
        until, system = int(ends[0]), int(ends[1])
        after = until - size
        values = {
            "p_conversation": conversation,
            "p_digest": digest,
            "p_after": after,
            "p_until": until,
            "p_system": system if system <= after else 0,
        }
        return _window(connection.execute(self._up_to, values).all(), after)

    def replayed(self, connection: Connection, conversation: str, digest: str, size: int) -> Window | None:
        """Return the window that ends at the messages of an earlier append; None without one of this key."""
        ends = connection.execute(self._ends, {"p_conversation": conversation, "p_digest": digest}).first()
        return None if ends is None else self.up_to(connection, conversation, digest, (ends[0], ends[1]), size)


def _window(rows: Sequence[Any], after: int) -> Window:
    """Return the window of rows in any order; one that is not over `after` is the older system message."""
    messages = stored_messages(sorted(rows, key=itemgetter(0)))
    if messages and messages[0].sequence <= after:
        return Window(messages[1:], messages[0])
    return Window(messages)
