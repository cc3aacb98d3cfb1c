"""`mlserver-llm classifier`: measures how well a served classifier routes."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
from mlserver.types import InferenceRequest, InferenceResponse
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlserver_chat import Message, RemoteClient, encode_history
from mlserver_chat.files import UnreadableFile, parse_json, read_text
from mlserver_chat.messages.types import as_messages
from mlserver_chat.tensors import as_input, float_elements, text_elements

from .words import Group, markup

_LARGEST_FILE = 64 * 2**20
"""Largest file of cases, in bytes."""
_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Case:
    """A conversation and the route it should take."""

    messages: list[Message]
    route: str


@dataclass(frozen=True)
class Result:
    """The classifier's decision on a case."""

    case: Case
    route: str
    score: float
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the classifier chose the expected route."""
        return self.route == self.case.route


@click.group(cls=Group)
def classifier() -> None:
    """Measure classifiers."""


@classifier.command("eval")
@click.argument("url")
@click.argument("cases", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wrong/--no-wrong", default=True, show_default=True, help="List the cases with a wrong route.")
@click.option("--at-least", type=click.FloatRange(0, 1), help="Exit with 1 if the accuracy is lower.")
def evaluate(url: str, cases: Path, wrong: bool, at_least: float | None) -> None:
    """Measure the accuracy of a served classifier on labelled conversations.

    URL is the address of the model, e.g. http://127.0.0.1:8080/v2/models/route-request/infer. CASES is a file with one
    JSON object per line: {"messages": [{"role": "user", "content": "…"}], "route": "status"}. Other keys are ignored.
    """
    console = Console()
    results = asyncio.run(_classify(url, _read_cases(cases), console))
    console.print(_routes_table(results), _thresholds_table(results), sep="\n")
    for result in [each for each in results if wrong and not each.right]:
        text = markup(result.case.messages[-1].text[:100])
        routes = f"[red]{markup(result.case.route)} → {markup(result.route)}[/]"
        console.print(f"{routes} {result.score:.2f}  {text}", highlight=False, soft_wrap=True)
    accuracy = sum(result.right for result in results) / len(results)
    median = sorted(result.seconds for result in results)[len(results) // 2]
    console.print(f"{accuracy:.1%} of {len(results)} right, median {median * 1000:.0f} ms", highlight=False)
    sys.exit(1 if at_least is not None and accuracy < at_least else 0)


def _read_cases(path: Path) -> list[Case]:
    cases: list[Case] = []
    try:
        text = read_text(path, _LARGEST_FILE)
    except UnreadableFile as error:
        raise click.ClickException(f"{path}: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = cast(dict[str, Any], parse_json(line))
            case = Case(as_messages(record["messages"]), str(record["route"]))
        except (ValueError, KeyError, TypeError) as error:
            raise click.ClickException(f"{path}:{number}: expected an object with 'messages' and 'route'") from error
        if not case.messages:
            raise click.ClickException(f"{path}:{number}: 'messages' is empty; expected at least one")
        cases.append(case)
    if not cases:
        raise click.ClickException(f"{path}: contains no case")
    return cases


async def _classify(url: str, cases: Sequence[Case], console: Console) -> list[Result]:
    client = RemoteClient(url, timeout=60)
    results: list[Result] = []
    try:
        for case in track(cases, "classifying", console=console, transient=True, disable=not console.is_terminal):
            began = time.perf_counter()
            answer = await client.infer("", InferenceRequest(inputs=[as_input(encode_history(case.messages))]))
            results.append(Result(case, *_decision(answer), time.perf_counter() - began))
    finally:
        await client.aclose()
    return results


def _decision(answer: InferenceResponse) -> tuple[str, float]:
    tensors = {output.name: output for output in answer.outputs}
    if "label" not in tensors or "score" not in tensors:
        raise click.ClickException(
            "the answer has no tensors 'label' and 'score'; expected a model of the Classifier runtime"
        )
    return text_elements(tensors["label"])[0], float_elements(tensors["score"])[0]


def _routes_table(results: Sequence[Result]) -> Table:
    wanted = Counter(result.case.route for result in results)
    chosen = Counter(result.route for result in results)
    right = Counter(result.route for result in results if result.right)
    table = Table("route", "cases", "chosen", "precision", "recall", box=None, padding=(0, 2))
    for route in sorted(wanted | chosen):
        precision = f"{right[route] / chosen[route]:.1%}" if chosen[route] else "–"
        recall = f"{right[route] / wanted[route]:.1%}" if wanted[route] else "–"
        table.add_row(markup(route), str(wanted[route]), str(chosen[route]), precision, recall)
    return table


def _thresholds_table(results: Sequence[Result]) -> Table:
    """For each threshold: how many cases would take the default route, and the accuracy of the others."""
    table = Table("threshold", "below it", "accuracy of the rest", box=None, padding=(0, 2))
    for threshold in _THRESHOLDS:
        kept = [result for result in results if result.score >= threshold]
        accuracy = f"{sum(result.right for result in kept) / len(kept):.1%}" if kept else "–"
        table.add_row(f"{threshold:g}", str(len(results) - len(kept)), accuracy)
    return table
