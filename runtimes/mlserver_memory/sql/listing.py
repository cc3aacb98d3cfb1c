"""Statements that page through a store. None is part of a turn."""

from typing import Any

from sqlalchemy import Executable, Select, func, select

from .schema import Tables, message_columns


def page(tables: Tables, conversation: str, after: int, limit: int) -> Executable:
    """Select messages of a conversation whose sequence is over `after`."""
    messages = tables.messages.c
    query = select(*message_columns(tables)).where(messages.conversation == conversation, messages.sequence > after)
    return query.order_by(messages.sequence).limit(limit)


def conversations(tables: Tables, namespace_id: str, after: str, limit: int) -> Executable:
    """Select conversations of a namespace that hold a message, in the order of their ids."""
    columns = tables.conversations.c
    query = select(tables.conversations).where(
        columns.namespace_id == namespace_id, columns.id > after, columns.messages > 0
    )
    return query.order_by(columns.id).limit(limit)


def stats(tables: Tables, namespace_id: str) -> Select[*tuple[Any, ...]]:
    """Select the numbers of conversations and of messages."""
    columns = tables.conversations.c
    query = select(func.count(), func.coalesce(func.sum(columns.messages), 0))
    return query.where(columns.namespace_id == namespace_id, columns.messages > 0)


def namespaces(tables: Tables) -> Executable:
    """Select the namespaces that hold a conversation."""
    columns = tables.conversations.c
    return select(columns.namespace).where(columns.messages > 0).distinct()
