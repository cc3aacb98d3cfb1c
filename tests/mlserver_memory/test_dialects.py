"""SQL Server and Oracle: what the store would send them, as text.

The texts are in `dialects/`; `python tests/mlserver_memory/test_dialects.py` writes them anew.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import ClauseElement, text
from sqlalchemy.dialects import mssql, oracle
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from mlserver_memory.conformance.tools import system, user
from mlserver_memory.sql import migrations
from mlserver_memory.sql.pruning import Pruning, forget_conversation
from mlserver_memory.sql.rows import Append, window_until
from mlserver_memory.sql.schema import make_tables
from mlserver_memory.sql.statements import Statements

FOLDER = Path(__file__).parent / "dialects"
DIALECTS: dict[str, Dialect] = {"mssql": mssql.dialect(), "oracle": oracle.dialect()}


class Result(list[Any]):
    """No rows, or one that is asked for as the first."""

    rowcount = 1

    def __init__(self, row: object):
        super().__init__()
        self._row = row

    def first(self) -> object:
        return self._row


class Recorder:
    """In place of a connection, and of what executes on one: keeps the text of every statement; conversations are there
    or not."""

    tails = None

    def __init__(self, dialect: Dialect, known: bool):
        self.dialect = dialect
        self.known = known
        self.texts: list[str] = []

    def execute(self, statement: ClauseElement, values: object = None) -> Any:
        self.texts.append(str(statement.compile(dialect=self.dialect)))
        row = SimpleNamespace(last=9, system=1, messages=9) if self.known else None
        return Result(row)

    def __call__(self, statement: ClauseElement, values: object = None) -> Any:
        self.execute(statement)
        return [(9, 1)] if self.known and self.texts[-1].startswith("UPDATE") else []

    def scalar(self, statement: ClauseElement) -> int:
        self.execute(statement)
        return 5


def everything(dialect: Dialect) -> str:
    """Everything, in the order of use."""
    tables = make_tables('m"[]_', "my schema")
    statements = Statements(tables)
    found = [str(CreateTable(table).compile(dialect=dialect)) for table in tables.metadata.sorted_tables]
    found += [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in tables.metadata.sorted_tables
        for index in table.indexes
    ]
    append = Append(statements, "id", "namespace", "memory_id", "digest", [system("s"), user("u")], {}, 3)
    for known in (True, False):
        connection: Any = Recorder(dialect, known)
        append.run(connection)
        found += connection.texts
    connection = Recorder(dialect, True)
    append.replayed(connection)
    for ends in ((9, 0), (9, 1)):
        window_until(connection, statements, "id", ends, 6)
    pruning = Pruning(tables, "namespace", 1.0, 2)
    pruning.prune(connection, "id", dry_run=True)
    pruning.prune(connection, "id", dry_run=False)
    for only in (None, "id"):
        pruning.candidates(connection, "", 5, only)
    pruning.long_deleted(connection)
    pruning.forget_deleted(connection, "id")
    forget_conversation(connection, tables, "id")
    for statement in vars(statements).values():
        # PostgreSQL's own.
        if isinstance(statement, ClauseElement) and statement is not statements.append_at_once:
            connection.execute(statement)
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
