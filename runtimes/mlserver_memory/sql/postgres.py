"""PostgreSQL appends in a function of the database: one round trip, which commits by itself, and nothing to plan anew.

Each statement of the function sees what was committed when it began, also after it waited for the conversation's row.
"""

from collections.abc import Hashable
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import BigInteger, Connection, Double, String, Text, TextualSelect, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from .schema import Tables
from .tails import Tails

_ARGUMENTS: dict[str, TypeEngine[Any]] = {
    "p_id": String(),
    "p_digest": String(),
    "p_namespace_id": String(),
    "p_namespace": Text(),
    "p_memory_id": Text(),
    "p_offset": BigInteger(),
    "p_now": Double(),
    "p_record": Text(),
    # Of the other messages of an append, which seldom has any: drivers take long to write an array.
    "p_more": ARRAY(Text),
    "p_provenance": Text(),
    "p_size": BigInteger(),
    "p_known_row": Text(),
    "p_known_updated": Double(),
}

_BODY = """
#variable_conflict use_column
DECLARE
  v_count CONSTANT bigint := 1 + coalesce(cardinality(p_more), 0);
  v_last bigint;
  v_system bigint;
  v_row xid;
  v_is_known boolean := FALSE;
BEGIN
  IF p_known_row IS NOT NULL THEN
    UPDATE {conversations} AS c SET {changes}
    WHERE c.id = p_id AND c.xmin = p_known_row::xid AND c.updated = p_known_updated
    RETURNING c."last", c."system", c.xmin INTO v_last, v_system, v_row;
    v_is_known := FOUND;
  END IF;
  IF NOT v_is_known THEN
    INSERT INTO {conversations} AS c
      (id, namespace_id, namespace, memory_id, "last", "system", "messages", oldest, updated)
    VALUES (p_id, p_namespace_id, p_namespace, p_memory_id, v_count, p_offset, v_count, p_now, p_now)
    ON CONFLICT (id) DO UPDATE SET {changes}
    RETURNING c."last", c."system", c.xmin INTO v_last, v_system, v_row;
  END IF;
  INSERT INTO {appends} (conversation, digest, "last", "system", created)
  VALUES (p_id, p_digest, v_last, v_system, p_now);
  FOR n IN 1 .. v_count LOOP
    INSERT INTO {messages} (conversation, "sequence", "record", created, provenance)
    VALUES (p_id, v_last - v_count + n, CASE n WHEN 1 THEN p_record ELSE p_more[n - 1] END, p_now, p_provenance);
  END LOOP;
  o_sequence := 0;
  o_record := concat_ws(' ', v_last, v_system, v_row);
  RETURN NEXT;
  IF v_is_known THEN
    RETURN;
  END IF;
  IF v_system BETWEEN 1 AND v_last - p_size THEN
    RETURN QUERY SELECT m."sequence", m."record", m.created, m.provenance FROM {messages} AS m
      WHERE m.conversation = p_id AND m."sequence" = v_system;
  END IF;
  RETURN QUERY SELECT m."sequence", m."record", m.created, m.provenance FROM {messages} AS m
    WHERE m.conversation = p_id AND m."sequence" > v_last - p_size AND m."sequence" <= v_last
    ORDER BY m."sequence";
END
"""

_CHANGES = """
  "system" = CASE WHEN p_offset > 0 THEN c."last" + p_offset ELSE c."system" END,
  "last" = c."last" + v_count,
  "messages" = c."messages" + v_count,
  oldest = CASE WHEN p_offset > 0 THEN 0 ELSE c.oldest END,
  updated = p_now
"""

_tails: WeakValueDictionary[Hashable, Tails] = WeakValueDictionary()


def tails_of(database: Hashable) -> Tails:
    """What this process knows of a database's conversations, for as long as a store uses it.

    A tail stays valid until somebody writes to the conversation's row, which its `xmin` tells, the transaction that
    wrote it last. After a crash, a failover or from a backup a server may give the same transaction's number again:
    then the time of the last append tells.
    """
    return _tails.setdefault(database, Tails())


def appended(row: Any) -> tuple[int, int, str]:
    """What the first row that the function returns tells of the conversation: sequence of its newest message, sequence
    of its newest system message (0 for none), `xmin` of its row."""
    last, system, xmin = row[1].split()
    return int(last), int(system), xmin


def connected(connection: Any, _: object) -> None:
    """What an append sees after it waited for another must not be older than that, and times are to come back as they
    were stored, whatever the database's defaults."""
    cursor = connection.cursor()
    cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
    cursor.execute("SET extra_float_digits = 3")
    cursor.close()


def create_append(connection: Connection, tables: Tables) -> None:
    """Make the function, or replace that of an earlier release with the same arguments."""
    quote = connection.dialect.identifier_preparer
    body = _BODY.format(
        changes=_CHANGES,
        conversations=quote.format_table(tables.conversations),
        appends=quote.format_table(tables.appends),
        messages=quote.format_table(tables.messages),
    )
    name, schema = quote.quote(tables.append), tables.version.schema
    if schema is not None:
        name = f"{quote.quote_schema(schema)}.{name}"
    arguments = ", ".join(f"{argument} {kind.compile(connection.dialect)}" for argument, kind in _ARGUMENTS.items())
    # As a text in quotes the body may hold any name.
    quoted = body.replace("'", "''")
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {name}({arguments}) "
        "RETURNS TABLE (o_sequence bigint, o_record text, o_created double precision, o_provenance text) "
        f"LANGUAGE plpgsql AS '{quoted}'"
    )


def append_at_once(tables: Tables) -> TextualSelect:
    """Take the sequences, keep the key and add the messages; gives what `appended` reads, and then the window, oldest
    first, behind a system message that is older than that. Without the window if the conversation's row is still the
    one with `xmin` `p_known_row` and `p_known_updated`: then the caller knows it.

    The row of the conversation is made or locked by the upsert, so that appends to one conversation follow one another;
    a key that is known violates the primary key of `appends`, and then nothing of all this has happened.
    """
    # SQLAlchemy's own functions leave a schema's name unquoted, which then means another one.
    names = (name for name in (tables.version.schema, tables.append) if name is not None)
    function = ".".join('"' + name.replace('"', '""').replace(":", r"\:") + '"' for name in names)
    values = ", ".join(f":{name}" for name in _ARGUMENTS)
    call = text(f"SELECT o_sequence, o_record, o_created, o_provenance FROM {function}({values})")  # noqa: S608 (quoted)
    bound = call.bindparams(*(bindparam(name, type_=kind) for name, kind in _ARGUMENTS.items()))
    return bound.columns(o_sequence=BigInteger, o_record=Text, o_created=Double, o_provenance=Text)
