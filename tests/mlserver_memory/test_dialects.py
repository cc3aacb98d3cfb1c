"""SQL Server and Oracle: the statements that the store would send, as text.

The texts are in `dialects/`; `python tests/mlserver_memory/test_dialects.py` rewrites them.
"""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ClauseElement, text
from sqlalchemy.dialects import mssql, oracle
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from mlserver_memory.conformance.tools import system, user
from mlserver_memory.sql import listing, migrations
from mlserver_memory.sql.dialects import generic
from mlserver_memory.sql.messages import NewMessages
from mlserver_memory.sql.pruning import Pruning, forget_conversation
from mlserver_memory.sql.schema import make_tables
from mlserver_memory.sql.windows import Windows

FOLDER = Path(__file__).parent / "dialects"
DIALECTS: dict[str, Dialect] = {"mssql": mssql.dialect(), "oracle": oracle.dialect()}


class Result(list[Any]):
    """The rows of a statement, and the first of them."""

    rowcount = 1

    def __init__(self, *rows: object):
        super().__init__(rows)

    def all(self) -> list[Any]:
        return list(self)

    def first(self) -> Any:
        return self[0] if self else None


class Row(tuple[int, ...]):
    """A row of any statement."""

    id = conversation = "id"
    last, system, messages = 9, 1, 9


class Recorder:
    """Stands in for a connection and keeps the text of every statement; conversations are there or not."""

    def __init__(self, dialect: Dialect, known: bool):
        self.dialect = dialect
        self.known = known
        self.texts: list[str] = []

    def execute(self, statement: ClauseElement, values: object = None) -> Any:
        self.texts.append(str(statement.compile(dialect=self.dialect)))
        return Result(Row((9, 1))) if self.known and "record" not in self.texts[-1] else Result()

    def scalar(self, statement: ClauseElement) -> int:
        self.execute(statement)
        return 5


def everything(dialect: Dialect) -> str:
    """Everything, in the order of use."""
    tables = make_tables('m"[]_', "my schema")
    found = [str(CreateTable(table).compile(dialect=dialect)) for table in tables.metadata.sorted_tables]
    found += [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in tables.metadata.sorted_tables
        for index in table.indexes
    ]
    messages = [system("s"), user("u")]
    new = NewMessages.of("id", "namespace", "memory_id", "digest", messages, {}, None, 3)
    for known in (True, False):
        connection: Any = Recorder(dialect, known)
        generic.Appender(tables, dialect).append(connection, new)
        found += connection.texts
    connection = Recorder(dialect, True)
    windows = Windows(tables)
    windows.newest(connection, "id", 3)
    windows.replayed(connection, "id", "digest", 3)
    for statement in (
        listing.page(tables, "id", 0, 5),
        listing.conversations(tables, "namespace", "", 5),
        listing.stats(tables, "namespace"),
        listing.namespaces(tables),
    ):
        connection.execute(statement)
    pruning = Pruning(tables, "namespace", 1.0, 2)
    pruning.prune(connection, "id", dry_run=True)
    pruning.prune(connection, "id", dry_run=False)
    for only in (None, "id"):
        pruning.candidates(connection, "", 5, only)
    pruning.long_deleted(connection)
    pruning.forget_deleted(connection, "id")
    forget_conversation(connection, tables, "id")
    migrations._set_version(connection, tables)
    for lock in migrations._LOCKS.get(dialect.name, ()):
        connection.execute(text(lock))
    found += connection.texts
    unique = dict.fromkeys("\n".join(line.rstrip() for line in each.strip().splitlines()) for each in found)
    return ";\n\n".join(unique) + ";\n"


@pytest.mark.parametrize("name", DIALECTS)
def test_the_statements_are_the_ones_on_record(name: str) -> None:
    assert everything(DIALECTS[name]) == (FOLDER / f"{name}.sql").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "quoted"), [("mssql", '[m"[]]_messages]'), ("oracle", '"m""[]_messages"')])
def test_configured_names_are_quoted_wherever_they_stand(name: str, quoted: str) -> None:
    found = everything(DIALECTS[name])
    assert quoted in found
    assert "_messages" not in found.replace(quoted, "")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each, its_dialect in DIALECTS.items():
        (FOLDER / f"{each}.sql").write_text(everything(its_dialect), encoding="utf-8")
