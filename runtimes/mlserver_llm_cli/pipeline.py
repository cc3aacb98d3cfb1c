"""`mlserver-llm pipeline`: checks, draws, explains and runs pipelines without a cluster."""

import asyncio
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from mlserver.types import InferenceRequest
from rich.console import Console
from rich.table import Table

from mlserver_chat.files import find_files
from mlserver_chat.limits import Limits
from mlserver_chat.tensors import text_input
from mlserver_pipeline.calls.remote import open_server
from mlserver_pipeline.calls.timed import TimedSteps
from mlserver_pipeline.calls.wire import message_from_request
from mlserver_pipeline.drawing.drawing import draw
from mlserver_pipeline.drawing.mermaid import flowchart
from mlserver_pipeline.engine.engine import Engine
from mlserver_pipeline.engine.explain import explain as explain_graph
from mlserver_pipeline.engine.runner import TRACE, Runner, entry_headers
from mlserver_pipeline.engine.trace import NodeTrace
from mlserver_pipeline.manifests.crds import KINDS, holds_resource
from mlserver_pipeline.manifests.graph import Graph
from mlserver_pipeline.manifests.lint import Finding, lint_file
from mlserver_pipeline.manifests.loading import load_graphs
from mlserver_pipeline.manifests.wiring import repository_tensors

from .words import Group, as_json, counted, markup, printable, say

MANIFEST = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Group)
def pipeline() -> None:
    """Check, draw, explain and run pipelines."""


@pipeline.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Model repository with the steps' models.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings too.")
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
def lint(paths: tuple[Path, ...], models: Path | None, strict: bool, form: str) -> None:
    """Check manifests of Seldon Core 2: files, or folders of .yaml files.

    Errors are faults that Core 2 rejects, crashes on, or ignores silently. Warnings are valid but likely mistakes.
    With --models, also checks that each step has a model and that the declared tensors fit together.
    """
    tensors = repository_tensors(models) if models else None
    files, left_out = _files(paths)
    for path, sentence in left_out.items():
        say(f"{printable(path)} {sentence}", err=True)
    if not files:
        raise click.ClickException(f"no manifest of Seldon Core 2 found in {', '.join(map(str, paths))}")
    findings = [finding for path in files for finding in lint_file(path, tensors)]
    if form == "json":
        say(as_json([dataclasses.asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            click.echo(_github(finding) if form == "github" else _text(finding))
    errors = sum(finding.level == "error" for finding in findings)
    if form == "text":
        warnings = len(findings) - errors
        say(f"{counted(len(files), 'file')}: {counted(errors, 'error')}, {counted(warnings, 'warning')}", err=True)
    sys.exit(1 if errors or left_out or (strict and findings) else 0)


def _files(paths: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Return the given files, the manifests in the given folders, and why folders were left out."""
    found: list[Path] = []
    left_out: dict[Path, str] = {}
    for path in paths:
        if path.is_dir():
            searched = find_files(path)
            left_out |= searched.left_out
            # The linter reports a file that it may not read.
            inside = searched.named("*.yaml", "*.yml")
            found += [each for each in inside if holds_resource(each) or not os.access(each, os.R_OK)]
        else:
            found.append(path)
    return found, left_out


def _text(finding: Finding) -> str:
    level = click.style(finding.level, fg="red" if finding.level == "error" else "yellow")
    place = f"{printable(finding.file)}:{finding.line}"
    return f"{place}: {level}: {printable(finding.sentence)} [{finding.rule}]\n    fix: {printable(finding.fix)}"


def _github(finding: Finding) -> str:
    """Format a finding as a workflow command, which GitHub shows beside the line."""
    message = printable(f"{finding.sentence}; {finding.fix}").replace("%", "%25")
    file = printable(finding.file).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{finding.level} file={file},line={finding.line},title={finding.rule}::{message}"


@pipeline.command()
@click.argument("manifest", type=MANIFEST)
@click.option("--format", "form", type=click.Choice(["mermaid", "svg"]), default="mermaid", show_default=True)
def graph(manifest: Path, form: str) -> None:
    """Draw the pipelines of a manifest as a flowchart.

    Circles are joins, dotted lines are triggers, and the labels of the lines are tensors. SVG requires
    `pip install 'mlserver-llm[graph]'`.
    """
    drawing = draw(_graphs(manifest))
    if form == "mermaid":
        say(flowchart(drawing).removesuffix("\n"))
        return
    try:
        from mlserver_pipeline.drawing.svg import picture
    except ImportError as error:
        raise click.ClickException("SVG requires pygraphviz: pip install 'mlserver-llm[graph]'") from error
    click.echo(picture(drawing))


@pipeline.command()
@click.argument("manifest", type=MANIFEST)
@click.option("--input", "inputs", multiple=True, metavar="NAME", help="Tensor of the request; repeatable.")
@click.option(
    "--emits", multiple=True, metavar="STEP=NAME,…", help="Tensors that a step emits; default: all that others read."
)
def explain(manifest: Path, inputs: tuple[str, ...], emits: tuple[str, ...]) -> None:
    """Show which steps would run for these tensors, and what the other steps wait for. Calls no model."""
    answers = {step: names.split(",") for step, _, names in (each.partition("=") for each in emits)}
    for each in _graphs(manifest):
        unknown = sorted(answers.keys() - set(each.steps))
        if unknown:
            raise click.UsageError(f"--emits names '{unknown[0]}'; pipeline '{each.name}' has no such step")
        names = inputs or _read_of_request(each)
        traces, result = asyncio.run(explain_graph(each, names, answers))
        _print_traces(traces)
        say(f"{each.name} {result}")


def _read_of_request(graph: Graph) -> tuple[str, ...]:
    sources = [source for node in graph.nodes for source in node.sources if source.topic == graph.inputs]
    return tuple(dict.fromkeys(name for source in sources for name in source.tensors)) or ("…",)


def _print_traces(traces: Sequence[NodeTrace]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("step", "fires", "why"):
        table.add_column(title, overflow="fold")
    for trace in traces:
        if trace.node.calls_model:
            table.add_row(markup(trace.node.name), "yes" if trace.firings else "no", markup(trace.why))
    Console().print(table)


@pipeline.command()
@click.argument("manifest", type=MANIFEST)
@click.option("--url", required=True, help="V2 server with the models: http://host:port or grpc://host:port.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="NAME=TEXT",
    help="Text tensor of the request; repeatable.",
)
@click.option("--pipeline", "name", help="Name of the pipeline; default: the first one in the file.")
@click.option("--trace", is_flag=True, help="Also print the trace of each step.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.001, 86400),
    default=120.0,
    show_default=True,
    help="Timeout of one step, in seconds.",
)
def run(manifest: Path, url: str, inputs: tuple[str, ...], name: str | None, trace: bool, timeout: float) -> None:
    """Run a pipeline in this process with models on a V2 server, which needs no support for pipelines."""
    if not url.startswith(("http://", "https://", "grpc://")):
        raise click.UsageError("--url must begin with http://, https:// or grpc://")
    graphs = _graphs(manifest)
    if name is not None and name not in [each.name for each in graphs]:
        raise click.UsageError(f"{manifest} contains no pipeline '{name}'")
    texts = [each.partition("=") for each in inputs]
    if not all(key and sign for key, sign, _ in texts):
        raise click.UsageError("--input expects NAME=TEXT")
    tensors = [text_input(key, [value]) for key, _, value in texts]
    say(asyncio.run(_run(graphs, name or graphs[0].name, InferenceRequest(inputs=tensors), url, trace, timeout)))


async def _run(graphs: list[Graph], name: str, request: InferenceRequest, url: str, trace: bool, timeout: float) -> str:
    steps = open_server(url, timeout, Limits().max_response_bytes)
    try:
        runner = Runner(Engine(graphs, TimedSteps(steps, timeout)))
        headers = entry_headers({TRACE: "1"} if trace else {})
        answer = await runner.answer(name, message_from_request(request), headers)
        await runner.aclose()
    finally:
        await steps.aclose()
    shown = {tensor.name: [_plain(element) for element in tensor.data] for tensor in answer.message.tensors}
    return as_json(shown, indent=2)


def _plain(element: object) -> object:
    return element.decode("utf-8", errors="replace") if isinstance(element, bytes) else element


def _graphs(manifest: Path) -> list[Graph]:
    return load_graphs(manifest.name, manifest.parent)


@pipeline.command()
@click.argument("kind", type=click.Choice([*KINDS]), default="Pipeline")
def schema(kind: str) -> None:
    """Print the JSON schema of a resource, for editors."""
    say(as_json(KINDS[kind].model_json_schema(), indent=2))
