"""The house rules of the design that a machine can check."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mlserver_chat
from support import ROOT

RUNTIMES = ROOT / "runtimes"
PACKAGES = sorted(path.name for path in RUNTIMES.glob("mlserver_*") if (path / "__init__.py").exists())
SOURCES = sorted(path for package in PACKAGES for path in (RUNTIMES / package).rglob("*.py"))
ALL_CODE = [
    path
    for folder in ("runtimes", "tests", "benchmarks", "training", "examples", "docs", "models")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]

FORBIDDEN = (
    r"trust_remote_code\s*=\s*True",
    r"torch\.load\(",
    r"\bpickle\b",
    r"yaml\.load\(",
    r"(?<![.\w])eval\(",
)
"""What would run code that came with weights, data or a request."""

HEAVY = ("torch", "transformers", "sqlalchemy", "openai", "psycopg", "pg8000")


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports absolutely."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) if node.level == 0]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package: str) -> None:
    others = set(PACKAGES) - {package, "mlserver_chat"}
    if package == "mlserver_llm_cli":
        return
    for path in (RUNTIMES / package).rglob("*.py"):
        assert not imported(path) & others, f"{path} imports another runtime"


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_and_folders_form_no_circles(package: str) -> None:
    """A folder counts as one thing, whatever lies in it."""
    arrows = [
        (_module_name(path), target)
        for path in (RUNTIMES / package).rglob("*.py")
        for target in modules_imported(path)
        if target.split(".")[0] == package
    ]
    for depth in (2, None):
        sorter = TopologicalSorter[str]()
        for module, target in arrows:
            start, end = (".".join(name.split(".")[:depth]) for name in (module, target))
            if start != end:
                sorter.add(start, end)
        sorter.prepare()


def modules_imported(path: Path) -> Iterator[str]:
    """The modules of this project that a file imports, by their full names."""
    package = path.relative_to(RUNTIMES).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            for alias in node.names:
                inner = RUNTIMES.joinpath(*base.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                yield f"{base}.{alias.name}" if is_module else base


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(RUNTIMES).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "mlserver_llm_local"])
def test_importing_a_package_brings_no_torch(package: str) -> None:
    code = f"import sys, {package}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    allowed = {"mlserver_llm_api": {"openai"}, "mlserver_memory": {"sqlalchemy"}}
    assert set(loaded) <= allowed.get(package, set())


@pytest.mark.parametrize("path", ALL_CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_finished(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TO" + r"DO|FIX" + r"ME)\b", text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(RUNTIMES)))
def test_no_source_runs_code_that_comes_with_data(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for forbidden in FORBIDDEN:
        assert not re.search(forbidden, text), forbidden


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(RUNTIMES)))
def test_a_package_logs_below_mlservers_logger(path: Path) -> None:
    """MLServer shows what is logged below `mlserver` from INFO on; of other loggers, only bare warnings."""
    package = path.relative_to(RUNTIMES).parts[0].removeprefix("mlserver_")
    for name in re.findall(r"^logger = logging.getLogger\((.*)\)", path.read_text(encoding="utf-8"), re.MULTILINE):
        assert name == f'"mlserver.{package}"'


def test_everything_public_is_exported_in_order() -> None:
    public = [name for name, value in vars(mlserver_chat).items() if not name.startswith("_") and not _module(value)]
    assert sorted(public, key=str.casefold) == sorted(mlserver_chat.__all__, key=str.casefold)


def _module(value: object) -> bool:
    return type(value).__name__ == "module"
