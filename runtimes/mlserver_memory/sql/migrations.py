"""Bringing the schema up to date, also when several replicas start at once."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, inspect, text

from mlserver_chat import NotReachable

from .schema import Tables


def _create(connection: Connection, tables: Tables) -> None:
    tables.metadata.create_all(connection)


MIGRATIONS: Sequence[Callable[[Connection, Tables], None]] = (_create,)
"""The step at index n makes version n + 1 out of version n. Where a database commits each DDL statement by itself
(MySQL, Oracle), a step that was interrupted runs again: it must bear that."""

_LOCKS = {
    "postgresql": "SELECT pg_advisory_xact_lock(hashtext(:name))",
    "mysql": "SELECT GET_LOCK(:name, 60)",
    "mariadb": "SELECT GET_LOCK(:name, 60)",
    "mssql": "EXEC sp_getapplock @Resource = :name, @LockMode = 'Exclusive', @LockOwner = 'Transaction'",
}
"""What makes the others wait. SQLite's transaction does so itself; Oracle has no lock that needs no grant, and there a
replica that comes second finds the tables made and tries again."""
_UNLOCKS = dict.fromkeys(("mysql", "mariadb"), "SELECT RELEASE_LOCK(:name)")


def migrate(connection: Connection, tables: Tables) -> None:
    """Bring the schema to the newest version, in the transaction of `connection`.

    Raises:
        NotReachable: the schema is newer than this release knows.
    """
    if _version(connection, tables) == len(MIGRATIONS):
        return
    with _alone(connection, tables):
        version = _version(connection, tables)
        if version > len(MIGRATIONS):
            raise NotReachable(
                f"the memory store has schema version {version}; this release knows {len(MIGRATIONS)}: install a newer"
            )
        for step in MIGRATIONS[version:]:
            step(connection, tables)
        row = {"name": "schema", "version": len(MIGRATIONS)}
        connection.execute(tables.version.delete().where(tables.version.c.name == "schema"))
        connection.execute(tables.version.insert().values(row))


def _version(connection: Connection, tables: Tables) -> int:
    if not inspect(connection).has_table(tables.version.name, schema=tables.version.schema):
        return 0
    column = tables.version.c.version
    return int(connection.scalar(tables.version.select().with_only_columns(column)) or 0)


@contextmanager
def _alone(connection: Connection, tables: Tables) -> Generator[None]:
    dialect, name = connection.dialect.name, {"name": f"mlserver-memory {tables.version.name}"}
    if dialect in _LOCKS:
        connection.execute(text(_LOCKS[dialect]), name)
    try:
        yield
    finally:
        if dialect in _UNLOCKS:
            connection.execute(text(_UNLOCKS[dialect]), name)
