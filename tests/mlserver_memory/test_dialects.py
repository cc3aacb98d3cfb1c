"""SQL Server and Oracle: what the store would send them, as text.

The texts are in `dialects/`; `python tests/mlserver_memory/test_dialects.py` writes them anew.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import ClauseElement
from sqlalchemy.dialects import mssql, oracle
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from mlserver_memory.conformance.tools import system, user
from mlserver_memory.sql.pruning import Pruning, forget_conversation
from mlserver_memory.sql.rows import Append, window_until
from mlserver_memory.sql.schema import make_tables
from mlserver_memory.sql.statements import Statements

FOLDER = Path(__file__).parent / "dialects"
DIALECTS: dict[str, Dialect] = {"mssql": mssql.dialect(), "oracle": oracle.dialect()}


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
        return SimpleNamespace(first=lambda: row, rowcount=1, __iter__=iter)

    def __call__(self, statement: ClauseElement, values: object = None) -> Any:
        self.execute(statement)
        return [(9, 1)] if self.known and self.texts[-1].startswith("UPDATE") else []

    def scalar(self, statement: ClauseElement) -> int:
        self.execute(statement)
        return 5


def texts(dialect: Dialect) -> str:
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
    pruning.forget_deleted(connection)
    forget_conversation(connection, tables, "id")
    for statement in (
        statements.page,
        statements.window,
        statements.conversations,
        statements.stats,
        statements.namespaces,
    ):
        connection.execute(statement)
    found += connection.texts
    unique = dict.fromkeys("\n".join(line.rstrip() for line in text.strip().splitlines()) for text in found)
    return ";\n\n".join(unique) + ";\n"


@pytest.mark.parametrize("name", DIALECTS)
def test_the_statements_are_the_ones_on_record(name: str) -> None:
    assert texts(DIALECTS[name]) == (FOLDER / f"{name}.sql").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "quoted"), [("mssql", '[m"[]]_messages]'), ("oracle", '"m""[]_messages"')])
def test_configured_names_are_quoted_wherever_they_stand(name: str, quoted: str) -> None:
    text = texts(DIALECTS[name])
    assert quoted in text
    assert "_messages" not in text.replace(quoted, "")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each, its_dialect in DIALECTS.items():
        (FOLDER / f"{each}.sql").write_text(texts(its_dialect), encoding="utf-8")
