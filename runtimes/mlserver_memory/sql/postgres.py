"""PostgreSQL appends in one statement, which is one round trip and commits by itself."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    Select,
    String,
    Text,
    Unicode,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects import postgresql

from .schema import Tables


def append_at_once(tables: Tables, is_single: bool) -> Select[Any]:
    """Take the sequences, keep the key and add the messages, or the one message, which is quicker to plan.

    The row of the conversation is made or locked by the upsert, so that appends to one conversation follow one another;
    a key that is known violates the primary key of `appends`, and then nothing of all this has happened.

    Gives `last` and `system` with each message of the window that was there before, in no order, or once with nulls.
    The statement sees what was committed when it began. Where it then waited for the conversation's row, that is out of
    date, and it gives no message.
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
    new = upsert.excluded
    has_system = new.system > literal_column("0")
    newest_system = case((has_system, conversations.last + new.system), else_=conversations.system)
    reserved = (
        upsert.on_conflict_do_update(
            index_elements=[conversations.id],
            set_={
                "system": newest_system,
                "last": conversations.last + new.last,
                "messages": conversations.messages + new.messages,
                "updated": new.updated,
            },
        )
        .returning(conversations.last, conversations.system, conversations.oldest)
        .cte("reserved")
    )
    keep_key = insert(tables.appends).from_select(
        [appends.conversation, appends.digest, appends.last, appends.system, appends.created],
        select(identity, digest, reserved.c.last, reserved.c.system, now),
    )
    records = bindparam("p_records", type_=Text if is_single else postgresql.ARRAY(Text))
    listed = func.unnest(records).table_valued("record", with_ordinality="position", name="listed").render_derived()
    last, after = reserved.c.last, reserved.c.last - bindparam("p_size", type_=BigInteger)
    sequence, record, source = last - count + listed.c.position, listed.c.record, reserved.join(listed, true())
    if is_single:
        sequence, record, source = last, records, reserved
    provenance = bindparam("p_provenance", type_=Text)
    add = insert(tables.messages).from_select(
        [messages.conversation, messages.sequence, messages.record, messages.created, messages.provenance],
        select(identity, sequence, record, now, provenance).select_from(source),
    )
    # Sequences begin anew in a conversation that was deleted: `oldest` tells it from the one before.
    seen = tables.conversations.alias("seen")
    is_current = and_(seen.c.id == identity, seen.c.last == last - count, seen.c.oldest == reserved.c.oldest)
    # pg8000 reads every character of a statement each time: short names are quicker.
    m = tables.messages.alias("m").c
    older = (
        select(m.sequence, m.record, m.created, m.provenance)
        .where(m.conversation == seen.c.id, which)
        .correlate(reserved, seen)
        for which in (m.sequence > after, and_(m.sequence == reserved.c.system, m.sequence <= after))
    )
    window = union_all(*older).lateral("older")
    return (
        select(last, reserved.c.system, window)
        .select_from(reserved.outerjoin(seen, is_current).outerjoin(window, true()))
        .add_cte(keep_key.cte("kept"), add.cte("added"))
    )
