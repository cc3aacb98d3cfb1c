"""Measure what each clever piece of the earlier SQL memory saved over HTTP: `python benchmarks/memory/ablation.py`.

Serves the last revision that had the pieces, once whole and once without each of them, on every database. The servers
run at the same time and are asked in turns, so that whatever else the machine does hits them alike. Prints the table of
README.md.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from run import Worker  # noqa: E402

from databases import sql_url  # noqa: E402
from support import ROOT, start_mlserver  # noqa: E402

REVISION = "5d841b8"
"""The last with the cache, the batches, the direct path, the function and the threads."""
PLAIN = "all of these"
SQLITE = {
    "cache": "cache",
    "batches": "batches",
    "direct path, cache and batches": "direct",
    "threads": "threads",
    "group commit": "group",
    PLAIN: "direct,threads",
}
POSTGRES = {
    "cache": "cache",
    "direct path and cache": "direct",
    "function and cache": "function",
    "threads": "threads",
    PLAIN: "direct,threads,function",
}
VARIANTS = {"sqlite": SQLITE, "psycopg": POSTGRES, "pg8000": POSTGRES}


def measure(kind: str, revision: Path, folder: Path, rounds: int, seconds: float) -> dict[tuple[str, int], list[float]]:
    """Requests a second of each variant with 1 and with 32 connections, a figure a round."""
    figures: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        clients: dict[str, Worker] = {}
        for number, (name, pieces) in enumerate({"whole": "", **VARIANTS[kind]}.items()):
            place = folder / f"{kind}-{number}"
            model = place / "models" / "memory"
            model.mkdir(parents=True)
            shutil.copy(HERE / "ablated.py", model)
            config = {"url": sql_url(kind, f"ablation_{kind}_{number}", place), "window_size": 50}
            settings = {
                "name": "memory",
                "implementation": "ablated.Ablated",
                "parameters": {"extra": {"database": "sql", "config": config}},
            }
            (model / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
            (place / "models" / "settings.json").write_text('{"parallel_workers": 0, "debug": false}', "utf-8")
            env = {"ABLATE": pieces, "PYTHONPATH": str(revision / "runtimes")}
            server = start_mlserver(place / "models", place, env)
            stack.callback(server.stop, True)
            clients[name] = Worker(sys.executable, "load.py", str(server.http_port))
            stack.callback(clients[name].close)
        # The first round fills the windows.
        for number in range(-1, rounds):
            for connections in (32, 1):
                for name, client in clients.items():
                    long = 4 * seconds if number < 0 else seconds
                    answer = client.ask({"model": "memory", "connections": connections, "seconds": long})
                    if number >= 0:
                        figures.setdefault((name, connections), []).append(answer["per_second"])
    return figures


def table(kind: str, figures: dict[tuple[str, int], list[float]]) -> list[str]:
    """Rows of the table: medians, with the lowest and the highest in brackets; what a piece saves."""
    whole = {connections: statistics.median(figures["whole", connections]) for connections in (1, 32)}
    rows: list[str] = []
    for name in dict.fromkeys(name for name, _ in figures):
        turns = sorted(1000 / each for each in figures[name, 1])
        rates = sorted(figures[name, 32])
        turn, rate = statistics.median(turns), statistics.median(rates)
        saved = "" if name == "whole" else f"{1 - 1000 / whole[1] / turn:.0%} | {1 - rate / whole[32]:.0%}"
        what = name if name == "whole" else f"without {name}"
        rows.append(
            f"| {kind}: {what} | {turn:.2f} ({turns[0]:.2f} to {turns[-1]:.2f}) | {rate:,.0f} "
            f"({rates[0]:,.0f} to {rates[-1]:,.0f}) | {saved or ' | '} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("kinds", nargs="*", default=list(VARIANTS))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ablation-"))
    try:
        archive, revision = folder / "revision.tar", folder / "revision"
        subprocess.run(["git", "-C", ROOT, "archive", "-o", archive, REVISION, "runtimes"], check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(revision, filter="data")
        print("| | ms a turn, 1 connection | requests/s, 32 connections | saves of a turn | saves at 32 |")
        print("|---|---:|---:|---:|---:|")
        for kind in arguments.kinds:
            print(
                "\n".join(table(kind, measure(kind, revision, folder, arguments.rounds, arguments.seconds))), flush=True
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
