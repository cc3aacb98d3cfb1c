"""The command `mlserver-llm`."""

import dataclasses
import sys
from pathlib import Path

import click

from .checks import Report, check_paths
from .classifier import classifier
from .memory import memory
from .pipeline import pipeline
from .prompts import prompts
from .words import Group, as_json, counted, printable, say


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlserver-llm")
def main() -> None:
    """LLM applications on MLServer and Seldon Core 2."""


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(paths: tuple[Path, ...], form: str) -> None:
    """Check model repositories, prompts and manifests without starting a server.

    Loads every settings file as its runtime would, but no weights and no stores, and calls no model. Exits with 1 if
    there is an error; warnings don't change the exit code.
    """
    report = check_paths(paths)
    (_print_json if form == "json" else _print_text)(report)
    sys.exit(1 if report.errors else 0)


def _print_json(report: Report) -> None:
    counts = {name: len(getattr(report, name)) for name in ("models", "prompts", "manifests")}
    findings = [dataclasses.asdict(finding) for finding in report.findings]
    say(as_json({**counts, "errors": report.errors, "warnings": report.warnings, "findings": findings}))


def _print_text(report: Report) -> None:
    for finding in report.findings:
        colour = "red" if finding.level == "error" else "yellow"
        level = click.style(finding.level, fg=colour)
        click.echo(f"{printable(finding.file)}: {level}: {printable(finding.sentence)}")
    checked = [
        counted(len(report.models), "model"),
        counted(len(report.prompts), "prompt"),
        counted(len(report.manifests), "manifest"),
    ]
    say(f"{', '.join(checked)}: {counted(report.errors, 'error')}, {counted(report.warnings, 'warning')}")


for group in (classifier, memory, pipeline, prompts):
    main.add_command(group)

if __name__ == "__main__":
    main()
