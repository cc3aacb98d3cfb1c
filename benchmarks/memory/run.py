"""Measure the memory beside its peers; write the raw figures to `results/` and the tables into `README.md`.

`python benchmarks/memory/run.py`; `--quick` tries every part at a tiny scale and writes to a temporary folder.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

import report  # noqa: E402
from entries import LENGTHS, MODELS, STORES, TURNS, Entry  # noqa: E402
from environments import python_of, versions  # noqa: E402
from rich.progress import Progress  # noqa: E402

from databases import execute, mariadb, postgres  # noqa: E402
from support import start_mlserver  # noqa: E402


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    lengths: tuple[int, ...]
    turn_rounds: int
    turns: int
    """Turns of each subject a round."""
    load_rounds: int
    callers: int
    turns_a_caller: int
    seconds: float
    """Of one HTTP measurement."""


FULL = Scale(LENGTHS, turn_rounds=40, turns=10, load_rounds=5, callers=200, turns_a_caller=10, seconds=3)
QUICK = Scale((50, 300, 2_000), turn_rounds=2, turns=3, load_rounds=1, callers=20, turns_a_caller=2, seconds=2)
CONNECTIONS = 32


class Places:
    """Folders and databases for subjects, gone with the run."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._made = 0

    def new(self, where: str) -> str:
        """A place of its own for a subject."""
        self._made += 1
        folder, database = self._folder / str(self._made), f"bench_{self._made}"
        folder.mkdir()
        ports = {"postgres": 0, "mariadb": 0}
        for kind, server in (("postgres", postgres), ("mariadb", mariadb)):
            if f"{{{kind}}}" in where:
                ports[kind] = server().port
                execute(kind, ports[kind], f"CREATE DATABASE {database}")
        return where.format(folder=folder, database=database, **ports)


class Worker:
    """A subject's process."""

    def __init__(self, python: str, *arguments: str):
        self._name = " ".join(arguments[1:])
        self._process = subprocess.Popen(
            [python, *arguments], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, verb: str, **arguments: object) -> Any:
        """Call a method of the subject."""
        return self.ask({"call": verb, "with": arguments})

    def ask(self, command: dict[str, object]) -> Any:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} failed")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _worker(stack: ExitStack, *arguments: str, python: str = sys.executable) -> Worker:
    """A worker that is closed with `stack`."""
    worker = Worker(python, *arguments)
    stack.callback(worker.close)
    return worker


Figures = Iterator[dict[str, object]]


def measure_turns(places: Places, scale: Scale, entries: Sequence[Entry], progress: Progress) -> Figures:
    """All subjects at all lengths take turns, so that whatever else the machine does hits them alike."""
    with ExitStack() as stack:
        subjects: list[tuple[Entry, Worker, list[int]]] = []
        for entry in progress.track(entries, description="fill"):
            lengths = [scale.lengths[LENGTHS.index(length)] for length in entry.lengths]
            worker = _worker(stack, "worker.py", entry.module, entry.subject, python=python_of(entry.environment))
            for length in lengths:
                worker.call("begin", length=length, where=places.new(entry.where))
            subjects.append((entry, worker, lengths))
        for number in progress.track(range(scale.turn_rounds), description="turns"):
            for entry, worker, lengths in subjects:
                for length in lengths:
                    seconds = worker.call("turns", length=length, count=scale.turns)
                    yield {"entry": entry.name, "length": length, "round": number, "seconds": seconds}


def measure_load(places: Places, scale: Scale, stores: dict[str, str], progress: Progress) -> Figures:
    """Many callers with a conversation each, beside the bare pool; then all of them on one conversation."""
    with ExitStack() as stack:
        subjects: list[tuple[str, str, str, Worker]] = []
        for name, where in stores.items():
            ours = _worker(stack, "worker.py", "concurrency", "Store")
            ours.call("begin", where=places.new(where))
            subjects += [(name, "store", "conversations", ours), (name, "store", "writers", ours)]
            if "://" in where:
                pool = _worker(stack, "worker.py", "concurrency", "Pool")
                pool.call("begin", where=places.new(where))
                subjects.append((name, "pool", "conversations", pool))
        for number in progress.track(range(-1, scale.load_rounds), description="many callers"):
            for name, subject, verb, worker in subjects:
                rate = worker.call(verb, count=scale.callers, turns=scale.turns_a_caller)
                # The first round makes connections and conversations.
                if number >= 0:
                    yield {"entry": name, "subject": subject, "callers": verb, "round": number, "per_second": rate}


def measure_http(folder: Path, scale: Scale, progress: Progress) -> Figures:
    """One server with the null model and memory on SQLite, asked in turns by the same client."""
    models = folder / "models"
    for name in MODELS:
        (models / name).mkdir(parents=True)
        settings: dict[str, object] = {"name": name, "implementation": "null_model.Null"}
        if name.startswith("memory"):
            config = {"url": f"sqlite:///{name}.db", "window_size": int(name.partition("-")[2])}
            parameters = {"extra": {"database": "sql", "config": config}}
            settings |= {"implementation": "mlserver_memory.ConversationalMemory", "parameters": parameters}
        (models / name / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
    shutil.copy(HERE / "null_model.py", models / "null")
    (models / "settings.json").write_text('{"parallel_workers": 0, "debug": false}', encoding="utf-8")
    server = start_mlserver(models, folder)
    try:
        with ExitStack() as stack:
            client = _worker(stack, "load.py", str(server.http_port))
            # The first rounds fill the windows.
            for number in progress.track(range(-2, scale.load_rounds), description="over HTTP"):
                for name in MODELS:
                    answer = client.ask({"model": name, "connections": CONNECTIONS, "seconds": scale.seconds})
                    if number >= 0:
                        yield {"entry": name, "round": number, **answer}
    finally:
        server.stop(kill=True)


def measure(scale: Scale, only: str, parts: Sequence[str], results: Path) -> None:
    """Measure the `parts` and write each one's figures to its file in `results`."""
    has_mariadb = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin") is not None
    entries = [each for each in TURNS if only.lower() in each.name.lower()]
    stores = {name: where for name, where in STORES.items() if only.lower() in name.lower()}
    if not has_mariadb:
        entries = [each for each in entries if "{mariadb}" not in each.where]
        stores = {name: where for name, where in stores.items() if "{mariadb}" not in where}
    folder = Path(tempfile.mkdtemp(prefix="bench-memory-"))
    try:
        with Progress() as progress:
            peers = sorted({entry.environment for entry in entries if entry.environment and "turns" in parts})
            for environment in progress.track(peers, description="environments"):
                python_of(environment)
            places = Places(folder)
            figures = {
                "turns": measure_turns(places, scale, entries, progress),
                "load": measure_load(places, scale, stores, progress),
                "http": measure_http(folder, scale, progress),
            }
            for part in parts:
                lines = [json.dumps(figure) + "\n" for figure in figures[part]]
                (results / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    finally:
        shutil.rmtree(folder)
    (results / "machine.json").write_text(json.dumps(machine(peers), indent=1) + "\n", encoding="utf-8")


def machine(environments: Sequence[str]) -> dict[str, object]:
    """What was measured on, and in which versions."""
    processors = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    cpu = next((line.partition(": ")[2] for line in processors if "model name" in line), platform.machine())
    found = {name or "mlserver-llm": versions(name) for name in (None, *environments)}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load at the end": os.getloadavg()[0],
        "versions": found,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Try everything at a tiny scale; README.md stays.")
    parser.add_argument("--only", default="", help="Part of the names of the entries to measure.")
    parser.add_argument("--part", action="append", choices=report.PARTS, help="Measure this part; default: all.")
    arguments = parser.parse_args()
    results = Path(tempfile.mkdtemp(prefix="bench-results-")) if arguments.quick else HERE / "results"
    results.mkdir(exist_ok=True)
    measure(QUICK if arguments.quick else FULL, arguments.only, arguments.part or report.PARTS, results)
    text = report.text(results)
    print(text)
    if not arguments.quick:
        report.into_readme(HERE / "README.md", text)


if __name__ == "__main__":
    main()
