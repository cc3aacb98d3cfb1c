"""Checks model repositories, folders and files."""

import contextlib
import difflib
import logging
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlserver_chat.files import FolderFiles, find_files
from mlserver_pipeline.manifests.crds import holds_resource

from . import server
from .between import check_modules, check_names, check_processes, check_reads
from .findings import Finding, error
from .manifests import check_manifest
from .models import FILE_NAME, CheckedModel, check_model
from .prompts import check_prompt_file, is_prompt
from .server import check_server_settings

_YAML = (".yaml", ".yml")


@dataclass
class Report:
    """The checked files and the findings."""

    models: set[Path] = field(default_factory=set[Path])
    prompts: set[Path] = field(default_factory=set[Path])
    manifests: set[Path] = field(default_factory=set[Path])
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return len(self.findings) - self.errors


def check_paths(paths: Sequence[Path]) -> Report:
    """Check model repositories, folders with manifests, single models, and single files."""
    report = Report()
    with _as_mlserver_starts(paths):
        for path in paths:
            report.findings += _check_folder(path, report) if path.is_dir() else _check_file(path, report)
    # A file that several models share, or that is found twice, is reported once.
    report.findings = list(dict.fromkeys(report.findings))
    return report


@contextlib.contextmanager
def _as_mlserver_starts(paths: Sequence[Path]) -> Generator[None]:
    """Import modules as `mlserver start` does, but keep their output, bytecode and logs away."""
    search, bytecode = list(sys.path), sys.dont_write_bytecode
    sys.path[:0] = [".", *(str(path) for path in paths if path.is_dir())]
    sys.dont_write_bytecode = True
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path[:], sys.dont_write_bytecode = search, bytecode
        logging.disable(logging.NOTSET)


def _check_file(path: Path, report: Report) -> list[Finding]:
    if path.name == FILE_NAME:
        return _checked(path, report).findings
    if path.name == server.FILE_NAME:
        return check_server_settings(path.parent)[1]
    if path.suffix in _YAML:
        report.manifests.add(_real(path))
        return check_manifest(path)
    report.prompts.add(_real(path))
    return check_prompt_file(path)


def _check_folder(folder: Path, report: Report) -> Iterator[Finding]:
    found = find_files(folder)
    for path, sentence in found.left_out.items():
        yield error(path, "", sentence)
    models = [_checked(path, report) for path in found.named(FILE_NAME)]
    for model in models:
        yield from model.findings
    if models:
        settings, findings = check_server_settings(folder)
        yield from findings
        yield from check_names(models)
        yield from check_modules(models)
        yield from check_processes(models, settings.parallel_workers if settings else 0)
        yield from check_reads(models)
    loose = [path for path in found.named("*.json") if is_prompt(path)]
    loose += [path for path in found.named("*.yaml", "*.yml") if holds_resource(path)]
    for path in loose:
        if _real(path) not in report.prompts | report.manifests:
            yield from _check_file(path, report)
    yield from _misspelt_files(found)
    if not models and not loose:
        yield error(folder, "", f"contains no {FILE_NAME}, no prompt and no manifest")


def _checked(path: Path, report: Report) -> CheckedModel:
    model = check_model(path)
    report.models.add(_real(path))
    for file in model.files:
        (report.manifests if file.suffix in _YAML else report.prompts).add(_real(file))
    return model


def _real(path: Path) -> Path:
    """Resolve symbolic links; return an invalid path unchanged."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return path


def _misspelt_files(found: FolderFiles) -> Iterator[Finding]:
    for path in found.named("*.json"):
        if path.name != FILE_NAME and difflib.get_close_matches(path.name, [FILE_NAME], cutoff=0.9):
            yield error(path, "", f"MLServer doesn't read this file; did you mean {FILE_NAME}?")
