"""Renders manifests/ by kustomize, using whichever of its two commands is installed."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import ROOT

MANIFESTS = ROOT / "manifests"
KUBERNETES = "1.30"
"""Oldest version that docs/deploy-core2.md supports."""


@functools.cache
def render(overlay: str) -> tuple[dict[str, Any], ...]:
    """Return the documents of `manifests/overlays/<overlay>`."""
    return build(MANIFESTS / "overlays" / overlay)


def build(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return the documents of a kustomization. Without kustomize, skip the test unless REQUIRE_KUSTOMIZE is set ."""
    commands = (["kustomize", "build"], ["kubectl", "kustomize"])
    command = next((words for words in commands if shutil.which(words[0])), None)
    if command is None:
        if os.environ.get("REQUIRE_KUSTOMIZE"):
            pytest.fail("neither kustomize nor kubectl is installed")
        pytest.skip("neither kustomize nor kubectl is installed")
    rendered = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert rendered.returncode == 0 and not rendered.stderr, rendered.stderr
    return tuple(yaml.safe_load_all(rendered.stdout))


def with_components(folder: Path, overlay: str, *components: str, exported: str = "") -> tuple[dict[str, Any], ...]:
    """Return the documents of an overlay with more `components`, rendered in a copy of manifests/ below `folder`.

    `exported` is the saved ServerConfig of the cluster, if any.
    """
    for name in ("manifests", "pipelines"):
        shutil.copytree(ROOT / name, folder / name)
    if exported:
        place = folder / "manifests/components/serverconfigs/cluster/mlserver.yaml"
        place.write_text(exported, encoding="utf-8")
    path = folder / f"manifests/overlays/{overlay}/kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text(encoding="utf-8"))
    kustomization["components"] += [f"../../components/{name}" for name in components]
    path.write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return build(path.parent)


def of_kind(documents: tuple[dict[str, Any], ...], kind: str) -> dict[str, dict[str, Any]]:
    """Return the documents of one kind, by name."""
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a Kubernetes label selector matches. An empty one matches everything."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    wanted = [*selector.get("matchExpressions", [])]
    wanted += [
        {"key": key, "operator": "In", "values": [value]} for key, value in selector.get("matchLabels", {}).items()
    ]
    assert all(each["operator"] == "In" for each in wanted)
    return all(labels.get(each["key"]) in each["values"] for each in wanted)


def quantity(text: str | int) -> float:
    """Return a Kubernetes quantity such as `100Mi` as a number."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    digits = str(text).rstrip("kmMGi")
    return float(digits) * units.get(str(text)[len(digits) :], 1)
