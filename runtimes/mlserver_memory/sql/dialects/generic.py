"""Appending with statements that every database understands, in a transaction around them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Double, bindparam, case, insert, literal, select, update
from sqlalchemy.engine import Dialect

from mlserver_chat import Window

from ..messages import NewMessages
from ..schema import Tables
from ..windows import Windows


def sequences_taken(conversations: Any) -> list[tuple[Any, Any]]:
    """The changes of a conversation's row when `p_count` messages are appended.

    `p_offset` is the position of the newest system message among them, 0 for none. The order matters on MySQL, which
    evaluates from left to right: `system` needs the old `last`.
    """
    count = bindparam("p_count", type_=BigInteger)
    offset = bindparam("p_offset", type_=BigInteger)
    return [
        (conversations.system, case((offset > 0, conversations.last + offset), else_=conversations.system)),
        (conversations.last, conversations.last + count),
        (conversations.messages, conversations.messages + count),
        # A newer system message makes the older one a candidate for pruning.
        (conversations.oldest, case((offset > 0, literal(0.0)), else_=conversations.oldest)),
        (conversations.updated, bindparam("p_now", type_=Double)),
    ]


class Appender:
    """Appends in four or five statements. The conversation's row stays locked until the transaction ends."""

    is_atomic = False

    def __init__(self, tables: Tables, dialect: Dialect):
        conversations = tables.conversations.c
        this = conversations.id == bindparam("p_conversation")
        ends = conversations.last, conversations.system
        self._has_returning = dialect.update_returning
        take = update(tables.conversations).where(this).ordered_values(*sequences_taken(conversations))
        self._take = take.returning(*ends) if self._has_returning else take
        self._ends = select(*ends).where(this)
        self._add_conversation = insert(tables.conversations)
        self._add_key = insert(tables.appends)
        self._add_messages = insert(tables.messages)
        self._windows = Windows(tables)

    def append(self, connection: Connection, new: NewMessages) -> Window:
        """Take the next sequences, add the key, add the messages, read the window."""
        ends = self._take_sequences(connection, new)
        if ends:
            last, system = ends[0]
        else:
            last, system = new.count, new.system_offset
            connection.execute(self._add_conversation, new.conversation_row())
        connection.execute(self._add_key, new.key_row(last, system))
        rows = new.message_rows(last)
        connection.execute(self._add_messages, rows if len(rows) > 1 else rows[0])
        return self._windows.up_to(connection, new.conversation, new.digest, (last, system), new.size)

    def _take_sequences(self, connection: Connection, new: NewMessages) -> Sequence[Any]:
        """Return the conversation's last sequence and that of its system message; nothing for a new conversation."""
        taken = connection.execute(self._take, new.counts())
        if self._has_returning:
            return taken.all()
        return connection.execute(self._ends, {"p_conversation": new.conversation}).all()
