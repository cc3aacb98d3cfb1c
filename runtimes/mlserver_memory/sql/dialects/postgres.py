"""Appending on PostgreSQL: one statement writes and commits by itself, a second one reads the window."""

from typing import Any

from sqlalchemy import BigInteger, Connection, Double, String, Text, bindparam, func, insert, select, true
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY

from mlserver_chat import Window

from ..messages import NewMessages
from ..schema import Tables
from ..windows import Windows
from .generic import sequences_taken


class Appender:
    """Appends in two round trips.

    The upsert of the conversation's row orders appends: the second of two waits for the first, and then sees what the
    first has committed. A known key violates the primary key of `appends`, and then nothing is written.
    """

    is_atomic = True

    def __init__(self, tables: Tables):
        conversations = tables.conversations.c
        conversation, digest = bindparam("p_conversation", type_=String), bindparam("p_digest", type_=String)
        count, offset = bindparam("p_count", type_=BigInteger), bindparam("p_offset", type_=BigInteger)
        now, provenance = bindparam("p_now", type_=Double), bindparam("p_provenance", type_=Text)
        new: dict[str, Any] = {
            "id": conversation,
            "namespace_id": bindparam("p_namespace_id"),
            "namespace": bindparam("p_namespace"),
            "memory_id": bindparam("p_memory_id"),
            "last": count,
            "system": offset,
            "messages": count,
            "oldest": now,
            "updated": now,
        }
        upsert = postgresql.insert(tables.conversations).values(new)
        upsert = upsert.on_conflict_do_update(
            index_elements=[conversations.id],
            set_={column.name: value for column, value in sequences_taken(conversations)},
        )
        taken = upsert.returning(conversations.last, conversations.system).cte("taken")
        key = insert(tables.appends).from_select(
            ["conversation", "digest", "last", "system", "created"],
            select(conversation, digest, taken.c.last, taken.c.system, now),
        )
        records = (
            func.unnest(bindparam("p_records", type_=ARRAY(Text)))
            .table_valued("record", with_ordinality="position", name="records")
            .render_derived()
        )
        sequence = taken.c.last - count + records.c.position
        messages = insert(tables.messages).from_select(
            ["conversation", "sequence", "record", "created", "provenance"],
            select(conversation, sequence, records.c.record, now, provenance).select_from(taken.join(records, true())),
        )
        self._write = select(taken.c.last, taken.c.system).add_cte(key.cte("key"), messages.cte("added"))
        self._windows = Windows(tables)

    def append(self, connection: Connection, new: NewMessages) -> Window:
        """Take the next sequences, add the key and the messages, then read the window."""
        row = new.conversation_row()
        values: dict[str, Any] = {
            **new.counts(),
            "p_namespace_id": row["namespace_id"],
            "p_namespace": row["namespace"],
            "p_memory_id": new.memory_id,
            "p_digest": new.digest,
            "p_records": list(new.records),
            "p_provenance": new.provenance_text,
        }
        last, system = connection.execute(self._write, values).one()
        before = self._windows.up_to(connection, new.conversation, new.digest, (last, system), new.size)
        # A deletion or pruning may have come in between. The answer holds the new messages all the same.
        return new.window_after(before, last)


def prepare_connection(connection: Any, _: object) -> None:
    """Prepare a new connection, whatever the database's defaults: an append that waited for another must see what that
    one committed, and times must come back as they were stored."""
    cursor = connection.cursor()
    cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
    cursor.execute("SET extra_float_digits = 3")
    cursor.close()
