"""`mlserver-llm pipeline`: look at pipelines, and run them, without a cluster."""

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
    """Pipelines: lint, draw, explain and run them."""


@pipeline.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--models", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Model repository.")
@click.option("--strict", is_flag=True, help="Exit 1 on warnings too.")
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
def lint(paths: tuple[Path, ...], models: Path | None, strict: bool, form: str) -> None:
    """Check Seldon's resources: files, or folders of .yaml files.

    Errors are what Core 2 rejects, in its own words, and what it accepts but crashes on or ignores; warnings are what
    will surprise. With --models also: are the steps there, and do the tensors that they declare fit together.
    """
    tensors = repository_tensors(models) if models else None
    files, left_out = _files(paths)
    for path, sentence in left_out.items():
        say(f"{printable(path)} {sentence}", err=True)
    if not files:
        raise click.ClickException(f"no YAML file of Seldon's resources in {', '.join(map(str, paths))}")
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
    """The files themselves, the YAML files of folders that hold one of Seldon's resources, and the folders left out."""
    found: list[Path] = []
    left_out: dict[Path, str] = {}
    for path in paths:
        if path.is_dir():
            searched = find_files(path)
            left_out |= searched.left_out
            # A file that may not be read gets its finding from the linter.
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
    """A workflow command, which GitHub shows beside the line."""
    message = printable(f"{finding.sentence}; {finding.fix}").replace("%", "%25")
    file = printable(finding.file).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{finding.level} file={file},line={finding.line},title={finding.rule}::{message}"


@pipeline.command()
@click.argument("manifest", type=MANIFEST)
@click.option("--format", "form", type=click.Choice(["mermaid", "svg"]), default="mermaid", show_default=True)
def graph(manifest: Path, form: str) -> None:
    """Draw a manifest's pipelines: steps, joins as circles, triggers as broken lines, the tensors on the lines.

    SVG needs `pip install 'mlserver-llm[graph]'`.
    """
    drawing = draw(_graphs(manifest))
    if form == "mermaid":
        say(flowchart(drawing).removesuffix("\n"))
        return
    try:
        from mlserver_pipeline.drawing.svg import picture
    except ImportError:
        raise click.ClickException("SVG is drawn by pygraphviz: pip install 'mlserver-llm[graph]'") from None
    click.echo(picture(drawing))


@pipeline.command()
@click.argument("manifest", type=MANIFEST)
@click.option("--input", "inputs", multiple=True, metavar="NAME", help="A tensor that the request brings.")
@click.option("--emits", multiple=True, metavar="STEP=NAME,…", help="What a step answers, if not all that is read.")
def explain(manifest: Path, inputs: tuple[str, ...], emits: tuple[str, ...]) -> None:
    """Tell what would fire for these tensors, and what a step that doesn't fire waits for. No model is called."""
    answers = {step: names.split(",") for step, _, names in (each.partition("=") for each in emits)}
    for each in _graphs(manifest):
        unknown = sorted(answers.keys() - set(each.steps))
        if unknown:
            raise click.UsageError(f"--emits names '{unknown[0]}', which is no step of '{each.name}'")
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
@click.option("--url", required=True, help="V2 server that has the models: http://host:port or grpc://host:port.")
@click.option("--input", "inputs", multiple=True, required=True, metavar="NAME=TEXT", help="A text tensor.")
@click.option("--pipeline", "name", help="Which pipeline of the file; default: the first.")
@click.option("--trace", is_flag=True, help="Also print what happened at each step.")
@click.option(
    "--timeout", type=click.FloatRange(0.001, 86400), default=120.0, show_default=True, help="Seconds for one step."
)
def run(manifest: Path, url: str, inputs: tuple[str, ...], name: str | None, trace: bool, timeout: float) -> None:
    """Run a manifest in this process, over the models of a server that need know nothing of pipelines."""
    if not url.startswith(("http://", "https://", "grpc://")):
        raise click.UsageError("--url must begin with http://, https:// or grpc://")
    graphs = _graphs(manifest)
    if name is not None and name not in [each.name for each in graphs]:
        raise click.UsageError(f"{manifest} has no pipeline '{name}'")
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
