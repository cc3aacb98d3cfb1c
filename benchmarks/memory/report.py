"""From the raw figures to tables, and to whether what is claimed holds."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from entries import MODELS, STORES, TURNS

PARTS = ("turns", "load", "http")
BEGIN, END = "<!-- results -->", "<!-- /results -->"

Claim = tuple[str, float, str]
"""What is claimed, what was measured, and the line: `≤ 1.2` or `≥ 10`."""


def _figures(results: Path, part: str) -> list[dict[str, Any]]:
    path = results / f"{part}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


class Turns:
    """Milliseconds of one append with its window, alone."""

    def __init__(self, figures: Sequence[dict[str, Any]]):
        self.milliseconds: dict[tuple[str, int], list[float]] = {}
        for figure in figures:
            samples = self.milliseconds.setdefault((figure["entry"], figure["length"]), [])
            samples += [seconds * 1000 for seconds in figure["seconds"]]
        self.lengths = sorted({length for _, length in self.milliseconds})
        self.names = [entry.name for entry in TURNS if any(name == entry.name for name, _ in self.milliseconds)]

    def median(self, name: str, length: int) -> float:
        return statistics.median(self.milliseconds[name, length])

    def table(self) -> str:
        """The median, and the 95th percentile in brackets."""
        head = ["milliseconds a turn at a history of", *(f"{length:,}" for length in self.lengths)]
        return _table(head, ([name, *(self._cell(name, length) for length in self.lengths)] for name in self.names))

    def _cell(self, name: str, length: int) -> str:
        samples = self.milliseconds.get((name, length))
        if samples is None:
            return ""
        return f"{statistics.median(samples):.2f} ({statistics.quantiles(samples, n=20)[-1]:.2f})"

    def claims(self) -> Iterable[Claim]:
        short, middle, long = self.lengths
        for name in self.names:
            if "mlserver_memory" in name:
                growth = self.median(name, long) / self.median(name, short)
                yield f"{name}, a history of {long:,} against one of {short:,}", growth, "≤ 1.2"
        for length, line in ((short, "≥ 5"), (middle, "≥ 25")):
            yield from self._against("SQLite: mlserver_memory", "SQLite: LangChain", length, line)
        for driver in ("psycopg", "pg8000"):
            ours, floor = f"PostgreSQL: mlserver_memory ({driver})", f"PostgreSQL: by hand ({driver})"
            if ours in self.names and floor in self.names:
                for length in self.lengths:
                    ratio = self.median(ours, length) / self.median(floor, length)
                    yield f"{ours} against by hand, at {length:,}", ratio, "≤ 2.0"
        # The peers that run on psycopg; none runs on pg8000.
        for peer in ("LangChain", "LangGraph"):
            yield from self._against("PostgreSQL: mlserver_memory (psycopg)", f"PostgreSQL: {peer}", short, "≥ 1")

    def _against(self, ours: str, peers: str, length: int, line: str) -> Iterable[Claim]:
        for peer in self.names:
            if peer.startswith(peers) and ours in self.names:
                ratio = self.median(peer, length) / self.median(ours, length)
                yield f"{peer} against {ours}, at {length:,}", ratio, line


class Load:
    """Appends a second with many callers at once."""

    def __init__(self, figures: Sequence[dict[str, Any]]):
        rates: dict[tuple[str, str, str], list[float]] = {}
        for figure in figures:
            rates.setdefault((figure["entry"], figure["subject"], figure["callers"]), []).append(figure["per_second"])
        self.rates = {key: statistics.median(values) for key, values in rates.items()}
        self.names = [name for name in STORES if (name, "store", "writers") in self.rates]

    def table(self) -> str:
        columns = [("store", "conversations"), ("pool", "conversations"), ("store", "writers")]
        head = ["appends a second", "200 conversations", "the bare pool", "200 writers of one conversation"]
        return _table(head, ([name, *(self._cell(name, *column) for column in columns)] for name in self.names))

    def _cell(self, *key: str) -> str:
        rate = self.rates.get((key[0], key[1], key[2]))
        return "" if rate is None else f"{rate:,.0f}"

    def claims(self) -> Iterable[Claim]:
        for name in self.names:
            pool = self.rates.get((name, "pool", "conversations"))
            if pool:
                ratio = self.rates[name, "store", "conversations"] / pool
                yield f"{name}, 200 conversations against the bare pool", ratio, "≥ 0.8"


class Http:
    """Requests a second over HTTP."""

    def __init__(self, figures: Sequence[dict[str, Any]]):
        self.rates = {name: [f["per_second"] for f in figures if f["entry"] == name] for name in MODELS}
        self.client = max(figure["client"] for figure in figures)

    def table(self) -> str:
        rows = [[MODELS[name], f"{statistics.median(rates):,.0f}"] for name, rates in self.rates.items()]
        rows.append(["(the client's part of a core, at most)", f"{self.client:.2f}"])
        return _table(["32 connections, parallel_workers 0", "requests a second"], rows)

    def claims(self) -> Iterable[Claim]:
        null = statistics.median(self.rates["null"])
        for name, rates in self.rates.items():
            if name != "null":
                yield f"{MODELS[name]}, against the null model", statistics.median(rates) / null, "≥ 0.45"


_KINDS: dict[str, type[Turns] | type[Load] | type[Http]] = {"turns": Turns, "load": Load, "http": Http}


def text(results: Path) -> str:
    """The tables of every part that has been measured, what is claimed of them, and the machine."""
    parts = [_KINDS[part](figures) for part in PARTS if (figures := _figures(results, part))]
    claims = [claim for part in parts for claim in part.claims()]
    held = _table(
        ["claim", "measured", "line", "held"],
        ([what, f"{ratio:.2f}", line, "yes" if _holds(ratio, line) else "**no**"] for what, ratio, line in claims),
    )
    return "\n\n".join([*(part.table() for part in parts), held, _machine(results)])


def _holds(ratio: float, line: str) -> bool:
    side, number = line.split()
    return ratio <= float(number) if side == "≤" else ratio >= float(number)


def _machine(results: Path) -> str:
    machine = json.loads((results / "machine.json").read_text("utf-8"))
    versions = machine.pop("versions")
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    for environment, found in versions.items():
        lines.append(f"- {environment}: " + ", ".join(f"{name} {version}" for name, version in found.items()))
    return "\n".join(lines)


def into_readme(path: Path, results: str) -> None:
    """Put the tables between the markers."""
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{results}\n\n{END}{after}", encoding="utf-8")
