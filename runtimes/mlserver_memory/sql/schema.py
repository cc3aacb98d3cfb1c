"""The tables of a store in SQL.

Three tables, and `version`, which holds the schema's. `conversations` has a row for each conversation, which is also
the lock that orders its appends: `last` is the sequence of its newest message. `messages` has a row for each message
under (conversation, sequence), so that a window is one range of the primary key. `appends` keeps the key of every
append: its primary key makes an append happen once. A conversation's id is the SHA-256 of namespace and `memory_id`, so
that no collation merges two.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Double, MetaData, String, Table, Text, Unicode
from sqlalchemy.dialects import mssql, mysql
from sqlalchemy.sql import quoted_name

# SQL Server compares text that a driver sends as NVARCHAR with a VARCHAR column by reading the whole index.
_HASH = String(64).with_variant(mssql.NVARCHAR(64), "mssql")
# 255 characters of four bytes are 510 units where a database counts UTF-16.
_NAME = Unicode(510)
_LONG_TEXT = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb").with_variant(mssql.NVARCHAR(None), "mssql")


@dataclass(frozen=True)
class Tables:
    """The tables of one store."""

    metadata: MetaData
    version: Table
    conversations: Table
    messages: Table
    appends: Table


def message_columns(tables: Tables) -> tuple[Column[Any], ...]:
    """Return the columns that are read of a message, in the order in which `stored_messages` takes them."""
    messages = tables.messages.c
    return messages.sequence, messages.record, messages.created, messages.provenance


def make_tables(prefix: str, schema: str | None) -> Tables:
    """The tables under the configured names, quoted."""
    metadata = MetaData(schema=None if schema is None else quoted_name(schema, quote=True))

    # Column names that some database reserves are quoted.
    def table(name: str, *columns: Column[object]) -> Table:
        return Table(
            quoted_name(prefix + name, quote=True),
            metadata,
            *columns,
            sqlite_with_rowid=False,
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
            mysql_engine="InnoDB",
        )

    return Tables(
        metadata,
        table(
            "version",
            Column("name", String(32), primary_key=True, quote=True),
            Column("version", BigInteger, nullable=False, quote=True),
        ),
        table(
            "conversations",
            Column("id", _HASH, primary_key=True),
            Column("namespace_id", _HASH, nullable=False, index=True),
            # Oracle keeps '' as NULL.
            Column("namespace", _NAME),
            Column("memory_id", _NAME, nullable=False),
            Column("last", BigInteger, nullable=False, quote=True),
            # Sequence of the newest system message, 0 for none.
            Column("system", BigInteger, nullable=False, quote=True),
            Column("messages", BigInteger, nullable=False, quote=True),
            # Not after the oldest message that pruning may remove; 0 where it has to look.
            Column("oldest", Double, nullable=False),
            Column("updated", Double, nullable=False),
        ),
        table(
            "messages",
            Column("conversation", _HASH, primary_key=True),
            Column("sequence", BigInteger, primary_key=True, autoincrement=False, quote=True),
            Column("record", _LONG_TEXT, nullable=False, quote=True),
            Column("created", Double, nullable=False),
            Column("provenance", _LONG_TEXT),
        ),
        table(
            "appends",
            Column("conversation", _HASH, primary_key=True),
            Column("digest", _HASH, primary_key=True),
            Column("last", BigInteger, nullable=False, quote=True),
            Column("system", BigInteger, nullable=False, quote=True),
            Column("created", Double, nullable=False),
        ),
    )
