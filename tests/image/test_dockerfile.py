"""Checks of the Dockerfile that need no build."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from image_build import RECIPE, instructions, normal, value_of
from support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
IMAGES: dict[str, str] = dict(re.findall(r"^EXTRAS_(\w+) := (\S+)$", MAKEFILE, re.MULTILINE))
PINS = {
    normal(name): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    )
    if version
}
TORCH_BUILDS: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("torch_builds.json").read_text(encoding="utf-8")
)
"""Requirements of torch's builds for Linux, and of the packages that only one build needs. From their metadata."""


def closure(extras: set[str], build: str = "cpu") -> dict[str, set[SpecifierSet]]:
    """Return the distributions, and their versions, that these extras and this build of torch need."""
    needed: dict[str, set[SpecifierSet]] = {}
    queue = [("mlserver-llm", extras)]
    while queue:
        name, wanted = queue.pop()
        recorded = TORCH_BUILDS[build].get(name)
        for text in (importlib.metadata.requires(name) or []) if recorded is None else recorded:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                continue
            found = normal(requirement.name)
            if found not in needed or requirement.extras:
                queue.append((found, requirement.extras))
            needed.setdefault(found, set()).add(requirement.specifier)
    needed.pop("mlserver-llm", None)
    return needed


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_every_runtime_has_an_image_with_known_extras() -> None:
    assert set(IMAGES) == {"all", "memory", "classifier", "local", "api", "prompt", "pipeline"}
    default = dict(value.split("=", 1) for name, value in instructions() if name == "ARG")["EXTRAS"]
    assert IMAGES["all"] == default
    for extras in IMAGES.values():
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("build", TORCH_BUILDS)
@pytest.mark.parametrize("image", IMAGES)
def test_constraints_pin_each_package_of_an_image_to_a_version_that_fits(image: str, build: str) -> None:
    needed = closure(set(IMAGES[image].split(",")), build)
    assert needed.keys() - PINS.keys() == set()
    assert {(name, str(s)) for name, allowed in needed.items() for s in allowed if PINS[name] not in s} == set()


def test_the_recorded_requirements_of_torch_are_those_of_the_pinned_version() -> None:
    if importlib.metadata.version("torch").split("+")[0] != PINS["torch"]:
        pytest.skip(f"torch {PINS['torch']} is not installed")

    def required(texts: list[str]) -> set[str]:
        wanted = (Requirement(text) for text in texts)
        applying = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
        return {f"{each.name}{sorted(each.extras)}{each.specifier}" for each in applying}

    installed = required(importlib.metadata.requires("torch") or [])
    assert installed in [required(build["torch"]) for build in TORCH_BUILDS.values()]


@pytest.mark.parametrize("image", sorted(set(IMAGES) - {"all", "local"}))
def test_only_the_local_model_brings_torch(image: str) -> None:
    assert not closure(set(IMAGES[image].split(","))).keys() & {"torch", "transformers"}


def test_copied_files_exist_and_nothing_else_is_sent_to_the_builder() -> None:
    copied = [
        source
        for name, value in instructions()
        if name == "COPY" and not value.startswith("--from=")
        for source in shlex.split(value)[:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if not line.startswith("#")]
    assert patterns[0] == "*"
    assert set(patterns[1:]) == {f"!{source}" for source in copied} | {"**/__pycache__", "**/*.egg-info"}


def test_the_image_has_the_version_of_the_project() -> None:
    assert RECIPE.labels["org.opencontainers.image.version"] == PROJECT["version"]


def test_packages_are_installed_in_a_separate_stage() -> None:
    steps = instructions()
    first, second = (place for place, (name, _) in enumerate(steps) if name == "FROM")
    bases = [value.split(" AS ")[0] for name, value in steps if name == "FROM"]
    assert bases == ["${PYTHON_IMAGE}"] * 2 and "-slim" in dict(steps[:first])["ARG"]
    image = steps[second:]
    assert [value for name, value in image if name == "COPY"] == ["--from=build /opt/venv /opt/venv"]
    assert not re.search(r"\b(pip|apt|apt-get) install\b", " ".join(value for name, value in image if name == "RUN"))


def test_the_image_runs_unprivileged_and_offline() -> None:
    assert value_of("USER") == "1000:1000"
    expected = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "MLSERVER_DEBUG": "false",
    }
    assert expected.items() <= RECIPE.envs.items()
