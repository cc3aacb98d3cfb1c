"""Brings the schema up to date, also if several replicas start at once."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, inspect, text

from mlserver_chat import NotReachable

from .dialects import BEGIN
from .schema import Tables


def _create(connection: Connection, tables: Tables) -> None:
    tables.metadata.create_all(connection)


def _nothing(_: Connection, __: Tables) -> None:
    """Versions 2 and 3 made the function `memory_append` on PostgreSQL. This release doesn't call it. It stays in
    databases that have it, for replicas of the previous release during a rolling update."""


MIGRATIONS: Sequence[Callable[[Connection, Tables], None]] = (_create, _nothing, _nothing)
"""The step at index n turns version n into version n + 1. Every step must be repeatable: MySQL and Oracle commit each
DDL statement, so a step may be interrupted halfway, and dropped tables are created again."""

_GET_LOCK = ("SELECT GET_LOCK(:name, 60)", "SELECT RELEASE_LOCK(:name)")
_LOCKS = {
    "postgresql": ("SELECT pg_advisory_lock(hashtext(:name))", "SELECT pg_advisory_unlock(hashtext(:name))"),
    "mysql": _GET_LOCK,
    "mariadb": _GET_LOCK,
    "mssql": (
        "EXEC sp_getapplock @Resource = :name, @LockMode = 'Exclusive', @LockOwner = 'Session'",
        "EXEC sp_releaseapplock @Resource = :name, @LockOwner = 'Session'",
    ),
}
"""Statements that take and release a lock between replicas. SQLite's transactions lock the file. Oracle has no lock
that works without a grant: the second replica fails because the tables exist, and tries again."""


def migrate(tables: Tables, connection: Connection, recreate: bool = False) -> None:
    """Bring the schema to the newest version and commit.

    Args:
        recreate: run all steps, even if the version is current.

    Raises:
        NotReachable: the schema is newer than this release supports.
    """
    is_current = schema_version(connection, tables) == len(MIGRATIONS)
    connection.commit()
    if is_current and not recreate:
        return
    with _alone(connection, tables):
        version = schema_version(connection, tables)
        if version > len(MIGRATIONS):
            raise NotReachable(
                f"the memory store has schema version {version}; this release supports schema versions up to "
                f"{len(MIGRATIONS)}; upgrade mlserver-llm"
            )
        for step in MIGRATIONS[0 if recreate else version :]:
            step(connection, tables)
        _set_version(connection, tables)
        connection.commit()


def _set_version(connection: Connection, tables: Tables) -> None:
    connection.execute(tables.version.delete().where(tables.version.c.name == "schema"))
    connection.execute(tables.version.insert().values(name="schema", version=len(MIGRATIONS)))


def schema_version(connection: Connection, tables: Tables) -> int:
    """Return the version of the schema, 0 if there is none."""
    if not inspect(connection).has_table(tables.version.name, schema=tables.version.schema):
        return 0
    column = tables.version.c.version
    return int(connection.scalar(tables.version.select().with_only_columns(column)) or 0)


@contextmanager
def _alone(connection: Connection, tables: Tables) -> Generator[None]:
    """Keep other replicas out of the block. It sees everything that the previous one committed."""
    name = {"name": f"mlserver-memory {tables.version.name}"[:64]}
    lock, unlock = _LOCKS.get(connection.dialect.name, (None, None))
    if lock is not None and unlock is not None:
        connection.execute(text(lock), name)
        connection.commit()
    if connection.dialect.name in BEGIN:
        connection.exec_driver_sql(BEGIN[connection.dialect.name])
    try:
        yield
    finally:
        connection.rollback()
        if unlock is not None:
            connection.execute(text(unlock), name)
            connection.commit()
