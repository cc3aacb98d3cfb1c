"""Every statement of the SQL store, built once for its tables; values are always bound."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    CompoundSelect,
    Double,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)

from .batches import known_appends
from .postgres import append_at_once
from .schema import Tables


class Statements:
    """The statements over `tables`. The names of bound values begin with `p_`, so that none meets a column's."""

    def __init__(self, tables: Tables):
        self.store = tables.conversations.fullname
        """Tells stores of one database apart."""
        conversations, messages, appends = tables.conversations.c, tables.messages.c, tables.appends.c
        this = conversations.id == bindparam("p_id")
        columns = _message_columns(tables)
        row = messages.conversation == bindparam("p_id")

        self.reserve = update(tables.conversations).where(this).ordered_values(*_reserving(conversations))
        """Take `p_count` sequences; the row stays locked until the transaction ends."""
        self.ends = select(conversations.last, conversations.system).where(this)
        self.reserve_returning = self.reserve.returning(conversations.last, conversations.system)
        self.add_conversation = insert(tables.conversations)
        self.add_messages = insert(tables.messages)
        self.add_append = insert(tables.appends)
        self.append_known = known_appends(tables)
        self.append_at_once = append_at_once(tables)
        self.replayed = select(appends.last, appends.system).where(
            and_(appends.conversation == bindparam("p_id"), appends.digest == bindparam("p_digest"))
        )

        self.range = (
            select(*columns)
            .where(row, messages.sequence > bindparam("p_after"), messages.sequence <= bindparam("p_until"))
            .order_by(messages.sequence)
        )
        """One range of the primary key."""
        self.range_and_system = self.range.order_by(None).union_all(
            select(*columns).where(row, messages.sequence == bindparam("p_system"))
        )
        self.window = _newest(tables, has_ends=False)
        """The newest `p_size` messages and an older system message, in one round trip."""
        self.window_and_ends = _newest(tables, has_ends=True)
        """And with each what `ends` gives."""
        self.page = (
            select(*columns)
            .where(row, messages.sequence > bindparam("p_after"))
            .order_by(messages.sequence)
            .limit(bindparam("p_limit"))
        )
        self.conversations = (
            select(tables.conversations)
            .where(
                conversations.namespace_id == bindparam("p_namespace"),
                conversations.id > bindparam("p_after"),
                conversations.messages > literal(0),
            )
            .order_by(conversations.id)
            .limit(bindparam("p_limit"))
        )
        self.stats = select(func.count(), func.coalesce(func.sum(conversations.messages), 0)).where(
            conversations.namespace_id == bindparam("p_namespace"), conversations.messages > literal(0)
        )

        self.namespaces = select(conversations.namespace).where(conversations.messages > literal(0)).distinct()
        self.delete_messages = delete(tables.messages).where(row)


def _reserving(conversations: Any) -> list[tuple[Column[Any], Any]]:
    """What taking `p_count` sequences, at `p_offset` of them the newest system message's, changes in a row."""
    offset: BindParameter[int] = bindparam("p_offset", type_=BigInteger)
    count: BindParameter[int] = bindparam("p_count", type_=BigInteger)
    now: BindParameter[float] = bindparam("p_now", type_=Double)
    # MySQL evaluates from left to right: `system` needs the old `last`.
    return [
        (conversations.system, case((offset > 0, conversations.last + offset), else_=conversations.system)),
        (conversations.last, conversations.last + count),
        (conversations.messages, conversations.messages + count),
        # A newer system message leaves the older one to pruning, which has to look.
        (conversations.oldest, case((offset > 0, literal(0.0)), else_=conversations.oldest)),
        (conversations.updated, now),
    ]


def _message_columns(tables: Tables) -> tuple[Column[Any], ...]:
    """What is read of a message."""
    messages = tables.messages.c
    return messages.sequence, messages.record, messages.created, messages.provenance


def _newest(tables: Tables, has_ends: bool) -> CompoundSelect[*tuple[Any, ...]]:
    """The newest `p_size` messages of a conversation and its system message if that is older, with each what `ends`
    gives where asked to.

    Neither where a window begins nor its system message is looked for by a join's condition: where one conversation has
    most messages of a store, PostgreSQL would read all of them for it.
    """
    conversations, messages = tables.conversations.c, tables.messages.c
    size: BindParameter[int] = bindparam("p_size", type_=BigInteger)
    columns, ends = _message_columns(tables), (conversations.last, conversations.system) if has_ends else ()
    this, mine = conversations.id == bindparam("p_id"), messages.conversation == bindparam("p_id")
    newest = select(*columns).where(mine).order_by(messages.sequence.desc()).limit(size).subquery()
    after = newest.c.sequence > conversations.last - size
    row = tables.conversations.alias()
    older = select(row.c.system).where(row.c.id == bindparam("p_id"), row.c.system <= row.c.last - size)
    with_row = tables.messages.join(tables.conversations, messages.conversation == conversations.id)
    return union_all(
        select(newest, *ends).select_from(tables.conversations.join(newest, after)).where(this),
        select(*columns, *ends).select_from(with_row).where(this, mine, messages.sequence == older.scalar_subquery()),
    )
