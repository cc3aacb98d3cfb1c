"""Append one message and read a window of 50, side by side: `python benchmarks/memory/run.py`.

Every subject runs in a process of its own, each peer with an environment of its own below `.envs/`, made on the first
run. All are filled first; then they take turns, a few appends at a time, so that whatever else the machine does hits
them alike. Writes `results.json` (every single figure) and prints a table.
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from databases import execute, postgres  # noqa: E402

ENVIRONMENTS = {
    "langchain": ["langchain-community", "langchain-postgres", "psycopg[binary]"],
    "langgraph": ["langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "psycopg[binary]"],
    "agents": ["openai-agents[sqlalchemy]", "aiosqlite", "asyncpg"],
}


@dataclass
class Entry:
    """A line of the table."""

    name: str
    subject: str
    where: str
    """`{folder}`, `{port}` and `{database}` are filled in."""
    environment: str | None = None
    longest: int = 1000
    """Lengths over this are not measured: the subject reads or rewrites all of it each time."""
    seconds: dict[int, list[float]] = field(default_factory=dict)


SQLITE, FILE, FOLDER = "sqlite:///{folder}/x.db", "{folder}/x.db", "{folder}"
PSYCOPG = "postgresql+psycopg://postgres@127.0.0.1:{port}/{database}"
DSN = "postgresql://postgres@127.0.0.1:{port}/{database}"
ENTRIES = (
    Entry("files: mlserver_memory", "ours_filesys", FOLDER, longest=100_000),
    Entry("files: LangChain FileChatMessageHistory", "langchain_file", FOLDER, "langchain"),
    Entry("SQLite: floor", "floor_sqlite", FILE, longest=100_000),
    Entry("SQLite: mlserver_memory", "ours_sql", SQLITE, longest=100_000),
    Entry("SQLite: LangChain SQLChatMessageHistory", "langchain_sql", SQLITE, "langchain"),
    Entry("SQLite: LangGraph SqliteSaver", "langgraph_sqlite", FILE, "langgraph"),
    Entry("SQLite: OpenAI Agents SQLAlchemySession", "agents_sql", "sqlite+aiosqlite:///{folder}/x.db", "agents"),
    Entry("PostgreSQL: floor (psycopg)", "floor_psycopg", DSN, longest=100_000),
    Entry("PostgreSQL: mlserver_memory (psycopg)", "ours_sql", PSYCOPG, longest=100_000),
    Entry("PostgreSQL: mlserver_memory (pg8000)", "ours_sql", PSYCOPG.replace("psycopg", "pg8000"), longest=100_000),
    Entry("PostgreSQL: LangChain PostgresChatMessageHistory", "langchain_postgres", DSN, "langchain"),
    Entry("PostgreSQL: LangGraph PostgresSaver", "langgraph_postgres", DSN, "langgraph"),
    Entry("PostgreSQL: OpenAI Agents SQLAlchemySession", "agents_sql", DSN.replace("://", "+asyncpg://"), "agents"),
)


def python_of(environment: str | None) -> str:
    """The interpreter of an environment, which is made when it is absent."""
    if environment is None:
        return sys.executable
    folder = HERE / ".envs" / environment
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making the environment of {environment}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *ENVIRONMENTS[environment]], check=True)
    return str(python)


class Worker:
    """A subject's process."""

    def __init__(self, entry: Entry, number: int, folder: Path):
        self.entry = entry
        (folder / str(number)).mkdir()
        places = {"folder": str(folder / str(number)), "port": 0, "database": f"bench_{time.time_ns()}"}
        if "{port}" in entry.where:
            places["port"] = postgres().port
            execute("postgres", postgres().port, f"CREATE DATABASE {places['database']}")
        command = [python_of(entry.environment), str(HERE / "worker.py"), entry.subject, entry.where.format(**places)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **command: int) -> dict[str, list[float]]:
        """Send a command and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.entry.name} failed")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def measure(entries: Sequence[Entry], length: int, rounds: int, turns: int) -> None:
    """One length of history, all subjects alternating."""
    folder = Path(tempfile.mkdtemp(prefix="bench-memory-"))
    workers = [Worker(entry, n, folder) for n, entry in enumerate(entries) if length <= entry.longest]
    try:
        for worker in workers:
            worker.ask(fill=length)
            worker.ask(turns=turns)
        for _ in range(rounds):
            for worker in workers:
                worker.entry.seconds.setdefault(length, []).extend(worker.ask(turns=turns)["seconds"])
    finally:
        for worker in workers:
            worker.close()
        shutil.rmtree(folder)


def table(entries: Sequence[Entry], lengths: Sequence[int]) -> str:
    """Milliseconds as Markdown: the median, and the 95th percentile in brackets."""
    lines = ["| milliseconds a turn at a history of | " + " | ".join(f"{length:,}" for length in lengths) + " |"]
    lines.append("|---|" + "---:|" * len(lengths))
    for entry in entries:
        cells: list[str] = []
        for length in lengths:
            seconds = entry.seconds.get(length)
            if not seconds:
                cells.append("")
                continue
            high = statistics.quantiles(seconds, n=20)[-1]
            cells.append(f"{statistics.median(seconds) * 1000:.2f} ({high * 1000:.2f})")
        lines.append(f"| {entry.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 1000, 100_000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--only", default="", help="Part of the names of the entries to measure.")
    arguments = parser.parse_args()
    entries = [entry for entry in ENTRIES if arguments.only.lower() in entry.name.lower()]
    for length in arguments.lengths:
        measure(entries, length, arguments.rounds, arguments.turns)
    (HERE / "results.json").write_text(
        json.dumps({"machine": platform.platform(), "seconds": {entry.name: entry.seconds for entry in entries}}),
        encoding="utf-8",
    )
    print(table(entries, arguments.lengths))


if __name__ == "__main__":
    main()
