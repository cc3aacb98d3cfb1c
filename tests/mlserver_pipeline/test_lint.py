"""Findings of the linter, and valid manifests without findings."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlserver_pipeline.manifests.advice import ADVICE
from mlserver_pipeline.manifests.lint import FIXES, Finding, lint_file
from mlserver_pipeline.manifests.validation import RULES
from mlserver_pipeline.manifests.wiring import repository_tensors
from pipeline_lab import manifest_text
from support import ROOT

ROUTED = """
steps:
- name: route
- name: left
  triggers: [route.outputs.l]
- name: right
  triggers: [route.outputs.r]
"""

# A spec, and the rules that it breaks with their lines (the spec starts at line 5).
SURPRISES: dict[str, tuple[str, list[tuple[str, int]]]] = {
    "nothing": ("steps: [{name: a}]\noutput: {steps: [a]}", []),
    "no output": ("steps: [{name: a}, {name: b, inputs: [a]}]", [("no-output", 4), ("unused-step", 5)]),
    "unused": ("steps:\n- name: a\n- name: b\noutput: {steps: [a]}", [("unused-step", 7)]),
    "only its inputs are read": (
        "steps:\n- name: a\n- name: b\n  inputs: [a.inputs]\noutput: {steps: [b]}",
        [("unused-step", 6)],
    ),
    "two triggers of one topic": (
        "steps:\n- name: a\n  triggers:\n  - p.inputs.x\n  - p.inputs.y\noutput: {steps: [a]}",
        [("trigger-either", 7)],
    ),
    "input is trigger": (
        "steps:\n- {name: a}\n- name: b\n  inputs: [a]\n  triggers: [a.outputs]\noutput: {steps: [b]}",
        [("input-is-trigger", 9)],
    ),
    "batch": (
        "steps:\n- name: a\n  batch: {size: 2, windowMs: 1, rolling: true}\n"
        "- name: b\n  inputs: [a, p]\n  batch: {size: 2}\noutput: {steps: [b]}",
        [("batch-ignored", 10), ("batch-fields", 7), ("batch-fields", 7)],
    ),
    "outer": (
        "steps:\n- name: a\n- name: b\noutput: {steps: [a, b], stepsJoin: outer}",
        [("outer-waits", 8)],
    ),
    "both routes to the output by any": (f"{ROUTED}output: {{steps: [left, right], stepsJoin: any}}", []),
    "both routes joined": (
        f"{ROUTED}- name: d\n  inputs: [left, right]\noutput: {{steps: [d]}}",
        [("never-joins", 12)],
    ),
    "one route only": (
        f"{ROUTED}output: {{steps: [left]}}",
        [("unused-step", 9), ("may-stall", 11)],
    ),
    "a route and the rest": (f"{ROUTED}output: {{steps: [left, right, route], stepsJoin: any}}", []),
}


def write(folder: Path, spec: str) -> Path:
    path = folder / "p.yaml"
    path.write_text(manifest_text(spec), encoding="utf-8")
    return path


def found(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(finding.rule, finding.line) for finding in findings]


@pytest.mark.parametrize("case", SURPRISES)
def test_lint_warns_at_the_right_line(tmp_path: Path, case: str) -> None:
    spec, expected = SURPRISES[case]
    findings = lint_file(write(tmp_path, spec))
    assert found(findings) == expected
    assert all(finding.level == "warning" for finding in findings)


def test_lint_finds_all_errors_and_then_gives_no_warnings(tmp_path: Path) -> None:
    findings = lint_file(write(tmp_path, "steps:\n- name: a_b\n- name: c\n  inputs: [d]\n  triggers: [e]\n"))
    assert found(findings) == [("unknown-step", 8), ("step-name", 6), ("unknown-trigger", 9)]
    assert all(finding.level == "error" and finding.fix for finding in findings)


def test_lint_finds_every_wrong_field(tmp_path: Path) -> None:
    findings = lint_file(write(tmp_path, "steps:\n- name: a\n  input: [p]\n  joinWindowMs: no way\noutputs: {}"))
    assert {(finding.rule, finding.line, finding.key) for finding in findings} == {
        ("schema", 7, "spec.steps[0].input"),
        ("schema", 8, "spec.steps[0].joinWindowMs"),
        ("schema", 9, "spec.outputs"),
    }


def test_file_that_is_not_yaml_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: [")
    assert found(lint_file(tmp_path / "p.yaml")) == [("unreadable", 1)]


def repository(folder: Path, **models: tuple[list[str], list[str]]) -> Path:
    """Write a repository of models, each with the names of its inputs and outputs."""
    for name, sides in models.items():
        tensors = [[{"name": each, "datatype": "BYTES", "shape": [-1]} for each in side] for side in sides]
        settings: dict[str, Any] = {"name": name, "inputs": tensors[0], "outputs": tensors[1]}
        (folder / name).mkdir(parents=True)
        (folder / name / "model-settings.json").write_text(json.dumps(settings))
    (folder / "broken").mkdir()
    (folder / "broken/model-settings.json").write_text("{")
    return folder


WIRING = {
    "unknown model": ("steps: [{name: z}]\noutput: {steps: [z]}", ["unknown-model"]),
    "unknown tensor": (
        "steps: [{name: a}, {name: free, inputs: [a.outputs.nope]}]\noutput: {steps: [free]}",
        ["unknown-tensor"],
    ),
    "unknown trigger tensor": (
        "steps: [{name: a}, {name: free, triggers: [a.outputs.nope]}]\noutput: {steps: [free]}",
        ["may-stall", "unknown-tensor"],
    ),
    "missing": ("steps: [{name: a}, {name: b, inputs: [a.outputs.x]}]\noutput: {steps: [b]}", ["missing-tensor"]),
    "renamed": (
        "steps: [{name: a}, {name: b, inputs: [a.outputs.x], tensorMap: {a.outputs.x: q}}]\noutput: {steps: [b]}",
        [],
    ),
    "ambiguous": (
        "steps: [{name: a}, {name: b, inputs: [a], tensorMap: {a.outputs.x: q}}, {name: c, inputs: [a, b]}]\n"
        "output: {steps: [c]}",
        ["ambiguous-tensor"],
    ),
    "undeclared is unknown": ("steps: [{name: free}, {name: b, inputs: [free]}]\noutput: {steps: [b]}", []),
    "undeclared tensor": ("steps: [{name: free}, {name: b, inputs: [free.outputs.q]}]\noutput: {steps: [b]}", []),
}


@pytest.mark.parametrize("case", WIRING)
def test_lint_with_a_repository_checks_the_wiring_of_tensors(tmp_path: Path, case: str) -> None:
    models = repository(tmp_path / "m", a=([], ["x"]), b=(["q"], ["x"]), c=([], ["y"]), free=([], []))
    spec, expected = WIRING[case]
    findings = lint_file(write(tmp_path, spec), repository_tensors(models))
    assert [finding.rule for finding in findings] == expected


def test_lint_reports_nothing_for_the_support_desk(tmp_path: Path) -> None:
    assert lint_file(ROOT / "pipelines/support-chat.yaml", repository_tensors(ROOT / "models")) == []


def test_every_rule_has_a_fix() -> None:
    assert {*RULES, *ADVICE} <= FIXES.keys()


def test_lint_checks_experiments_and_skips_other_kinds(tmp_path: Path) -> None:
    head = "apiVersion: mlops.seldon.io/v1alpha1\nkind: Experiment\nmetadata: {name: e}\nspec:\n"
    wrong, empty = f"{head}  candidates: [{{name: a, weigth: 1}}]\n", f"{head}  candidates: []\n"
    (tmp_path / "p.yaml").write_text(f"{wrong}---\nkind: Deployment\n---\n{empty}", encoding="utf-8")
    findings = lint_file(tmp_path / "p.yaml")
    assert found(findings) == [("schema", 5), ("schema", 5), ("experiment", 12)]
    assert findings[2].sentence == "experiment e has no candidates or mirror"
