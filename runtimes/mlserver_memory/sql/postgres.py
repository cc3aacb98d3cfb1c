"""PostgreSQL appends in one statement, which is one round trip and commits by itself."""

from sqlalchemy import BigInteger, Double, Select, String, Text, Unicode, bindparam, case, func, insert, select, true
from sqlalchemy.dialects import postgresql

from .schema import Tables


def append_at_once(tables: Tables) -> "Select[int, int]":
    """Take the sequences, keep the key and add the messages; gives `last` and `system`.

    The row of the conversation is made or locked by the upsert, so that appends to one conversation follow one another;
    a key that is known violates the primary key of `appends`, and then nothing of all this has happened.
    """
    conversations, messages, appends = tables.conversations.c, tables.messages.c, tables.appends.c
    identity, digest = bindparam("p_id", type_=String), bindparam("p_digest", type_=String)
    count, offset = bindparam("p_count", type_=BigInteger), bindparam("p_offset", type_=BigInteger)
    now = bindparam("p_now", type_=Double)
    upsert = postgresql.insert(tables.conversations).values(
        id=identity,
        namespace_id=bindparam("p_namespace_id", type_=String),
        namespace=bindparam("p_namespace", type_=Unicode),
        memory_id=bindparam("p_memory_id", type_=Unicode),
        last=count,
        system=offset,
        messages=count,
        oldest=now,
        updated=now,
    )
    reserved = (
        upsert.on_conflict_do_update(
            index_elements=[conversations.id],
            set_={
                "system": case((offset > 0, conversations.last + offset), else_=conversations.system),
                "last": conversations.last + count,
                "messages": conversations.messages + count,
                "updated": now,
            },
        )
        .returning(conversations.last, conversations.system)
        .cte("reserved")
    )
    keep_key = insert(tables.appends).from_select(
        [appends.conversation, appends.digest, appends.last, appends.system, appends.created],
        select(identity, digest, reserved.c.last, reserved.c.system, now),
    )
    records = bindparam("p_records", type_=postgresql.ARRAY(Text))
    new = func.unnest(records).table_valued("record", with_ordinality="position", name="new").render_derived()
    add = insert(tables.messages).from_select(
        [messages.conversation, messages.sequence, messages.record, messages.created, messages.provenance],
        select(
            identity,
            reserved.c.last - count + new.c.position,
            new.c.record,
            now,
            bindparam("p_provenance", type_=Text),
        ).select_from(reserved.join(new, true())),
    )
    return select(reserved.c.last, reserved.c.system).add_cte(keep_key.cte("kept"), add.cte("added"))
