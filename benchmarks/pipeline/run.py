"""Measures the pipeline runner and the support desk. Writes raw figures to `results/` and tables to `README.md`.

Run `python benchmarks/pipeline/run.py`. `--quick` runs every part at a tiny scale and prints the results.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent / "tests"), str(HERE.parent / "memory")]

import httpx2  # noqa: E402
from desk import GARBAGE, body, repository  # noqa: E402
from environments import python_of, versions  # noqa: E402

from support import start_mlserver  # noqa: E402

OURS, HTTP = "mlserver-llm", "mlserver-llm over HTTP"
TUNED = "LangGraph, tuned as we are"
PEERS = {"LangGraph": "async", "LangGraph, durability sync": "sync", TUNED: "async"}
"""Variants of the LangGraph desk, by its durability: the default; every step stored before the next one runs; and on
uvloop, collecting garbage as rarely as the desk of this suite."""
CALLERS = {1: 100, 64: 10}
"""Numbers of concurrent callers, and the turns of each caller in a round."""
ROUNDS = 7
MANY = 64


class Worker:
    """A desk in its own process."""

    def __init__(self, python: str, script: str, folder: Path, *options: str):
        folder.mkdir()
        command = [python, "-W", "ignore", HERE / script, folder, *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Run turns, and return the time that they took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a desk failed")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


async def over_http(url: str, callers: int, turns: int, number: int) -> dict[str, Any]:
    """The same turns through MLServer's REST API."""
    async with httpx2.AsyncClient(timeout=120, limits=httpx2.Limits(max_connections=callers)) as client:

        async def conversation(name: str) -> list[float]:
            seconds: list[float] = []
            for turn in range(turns):
                asked = body(name, turn)
                began = time.perf_counter()
                answer = await client.post(f"{url}/v2/pipelines/support-chat/infer", json=asked)
                seconds.append(time.perf_counter() - began)
                assert answer.is_success, answer.text
            return seconds

        began = time.perf_counter()
        each = await asyncio.gather(*(conversation(f"{number}-{callers}-{caller}") for caller in range(callers)))
        return {"seconds": time.perf_counter() - began, "latencies": [one for turns in each for one in turns]}


def measure(folder: Path, rounds: int, divisor: int) -> Iterator[dict[str, Any]]:
    """Let all desks take turns, so that other load on the machine affects them alike. The first round warms up."""
    with ExitStack() as stack:
        ours = Worker(sys.executable, "desk.py", folder / "ours")
        peer = Worker(python_of("langgraph"), "langgraph_desk.py", folder / "peer")
        tuned = Worker(python_of("langgraph"), "langgraph_desk.py", folder / "tuned", "--tuned")
        for worker in (ours, peer, tuned):
            stack.callback(worker.close)
        models = repository(folder)
        (models / "settings.json").write_text('{"parallel_workers": 0, "debug": false}', encoding="utf-8")
        server = start_mlserver(models, folder, GARBAGE)
        stack.callback(server.stop)
        for number in range(-1, rounds):
            for callers, turns in CALLERS.items():
                asked = {"callers": callers, "turns": max(turns // divisor, 2), "round": number}
                answers = {OURS: ours.ask(**asked)}
                for name, durability in PEERS.items():
                    answers[name] = (tuned if name == TUNED else peer).ask(**asked, durability=durability)
                answers[HTTP] = asyncio.run(over_http(server.url, callers, asked["turns"], number))
                for name, answer in answers.items():
                    if number >= 0:
                        yield {"entry": name, **asked, **answer}


def overhead() -> dict[str, float]:
    """Milliseconds a step."""
    command = [sys.executable, "-W", "ignore", HERE / "overhead.py"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def tables(steps: dict[str, float], figures: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = ["| a step in process | ms |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in steps.items()]
    lines += ["", f"Target: at most 0.3 ms a step. **{_holds(steps['runner'] <= 0.3)}**"]
    for callers in CALLERS:
        lines += [
            "",
            f"| {callers} at once | turns a second | median ms | slowest ms | times slower |",
            "|---|---|---|---|---|",
        ]
        best = _rate(figures, OURS, callers)
        for name in (OURS, *PEERS, HTTP):
            seconds = [one for each in figures if _is(each, name, callers) for one in each["latencies"]]
            rate = _rate(figures, name, callers)
            median, slowest = statistics.median(seconds) * 1000, max(seconds) * 1000
            lines.append(f"| {name} | {rate:.0f} | {median:.2f} | {slowest:.1f} | {best / rate:.1f} |")
        ratio = best / _rate(figures, "LangGraph", callers)
        lines += [
            "",
            f"Target: 3 times LangGraph's turns a second; measured {ratio:.1f} times. **{_holds(ratio >= 3)}**",
        ]
    ours = [each["latencies"] for each in figures if _is(each, OURS, MANY)]
    worst = max(max(one) / statistics.median(one) for one in ours)
    lines += ["", f"The slowest of {MANY} concurrent turns took {worst:.1f} times the median one's time."]
    return "\n".join(lines)


def _is(figure: dict[str, Any], name: str, callers: int) -> bool:
    return figure["entry"] == name and figure["callers"] == callers


def _rate(figures: list[dict[str, Any]], name: str, callers: int) -> float:
    """Turns a second: the median of the rounds."""
    return statistics.median(len(each["latencies"]) / each["seconds"] for each in figures if _is(each, name, callers))


def _holds(target: bool) -> str:
    return "Met." if target else "Missed."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny scale; publishes nothing")
    quick = parser.parse_args().quick
    steps = overhead()
    with tempfile.TemporaryDirectory() as folder:
        figures = list(measure(Path(folder), 1 if quick else ROUNDS, 5 if quick else 1))
    found = tables(steps, figures)
    print(found)
    if quick:
        return
    machine = {"processors": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    about = {
        "machine": machine,
        "versions": {"ours": versions(None), "langgraph": versions("langgraph")},
        "steps": steps,
    }
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (results / "desk.jsonl").write_text("".join(json.dumps(each) + "\n" for each in figures), encoding="utf-8")
    on = f"{machine['processors']} processors, Python {machine['python']}, " + ", ".join(
        f"{name} {version}"
        for found in about["versions"].values()
        for name, version in found.items()
        if name != "Python"
    )
    readme = HERE / "README.md"
    head, _, rest = readme.read_text(encoding="utf-8").partition("<!-- results -->")
    tail = rest.partition("<!-- /results -->")[2]
    block = f"<!-- results -->\n\n{found}\n\nMeasured on {on}.\n\n<!-- /results -->"
    readme.write_text(head + block + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
