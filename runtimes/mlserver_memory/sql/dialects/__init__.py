"""How databases differ: how each appends, begins a transaction, and prepares a connection."""

from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect

from mlserver_chat import Window

from ..messages import NewMessages
from ..schema import Tables
from . import generic, postgres

BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}
"""Begins a transaction on databases whose connections here commit every statement by itself otherwise."""


class Appender(Protocol):
    """Appends with the statements of one dialect."""

    is_atomic: bool
    """Whether `append` needs no transaction around it: one statement does all its writing."""

    def append(self, connection: Connection, new: NewMessages) -> Window:
        """Append and return the window that ends at the new messages.

        Raises:
            IntegrityError: the key is known, or another first append to the conversation won. Nothing was written.
        """
        ...


def appender_for(dialect: Dialect, tables: Tables) -> Appender:
    """Return the appender for a dialect."""
    return postgres.Appender(tables) if dialect.name == "postgresql" else generic.Appender(tables, dialect)
