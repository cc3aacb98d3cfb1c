"""Bringing the schema up to date, also when several replicas start at once."""

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
"""The step at index n makes version n + 1 out of version n. A step must bear to run again: it may have been interrupted
where a database commits each DDL statement by itself (MySQL, Oracle), and what is gone is made anew."""

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
"""What makes other replicas wait, and what lets them go on. SQLite's writing transactions do so themselves; Oracle has
no lock that needs no grant, and there a replica that comes second finds the tables made and tries again."""


def migrate(tables: Tables, connection: Connection, anew: bool = False) -> None:
    """Bring the schema to the newest version and commit; `anew` also when it says that it has that.

    Raises:
        NotReachable: the schema is newer than this release knows.
    """
    is_current = schema_version(connection, tables) == len(MIGRATIONS)
    connection.commit()
    if is_current and not anew:
        return
    with _alone(connection, tables):
        version = schema_version(connection, tables)
        if version > len(MIGRATIONS):
            raise NotReachable(
                f"the memory store has schema version {version}; this release knows {len(MIGRATIONS)}: install a newer"
            )
        for step in MIGRATIONS[0 if anew else version :]:
            step(connection, tables)
        _set_version(connection, tables)
        connection.commit()


def _set_version(connection: Connection, tables: Tables) -> None:
    connection.execute(tables.version.delete().where(tables.version.c.name == "schema"))
    connection.execute(tables.version.insert().values(name="schema", version=len(MIGRATIONS)))


def schema_version(connection: Connection, tables: Tables) -> int:
    """Version of the schema that is there, 0 for none."""
    if not inspect(connection).has_table(tables.version.name, schema=tables.version.schema):
        return 0
    column = tables.version.c.version
    return int(connection.scalar(tables.version.select().with_only_columns(column)) or 0)


@contextmanager
def _alone(connection: Connection, tables: Tables) -> Generator[None]:
    """While the block runs, no other replica is in it; it begins with what the one before has committed."""
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
