"""Manifests that loading refuses, in Core 2's words if Core 2 refuses them too."""

from pathlib import Path

import pytest

from mlserver_chat import SettingsError
from mlserver_pipeline.manifests.loading import load_graphs
from mlserver_pipeline.manifests.manifest import read_manifests
from mlserver_pipeline.manifests.validation import check
from pipeline_lab import manifest_text

REFUSED = {
    "repeated": ("steps: [{name: a}, {name: a}]", "pipeline p has repeated step a"),
    "no steps": ("steps: []", "pipeline p has no steps defined"),
    "step like pipeline": (
        "steps: [{name: p}]",
        "pipeline p must not have a step name with the same name as pipeline name",
    ),
    "empty input": ("steps: [{name: a, inputs: ['']}]", "pipeline p step a has an empty input"),
    "dot input": ("steps: [{name: a, inputs: ['.inputs']}]", "pipeline p step a has an empty input"),
    "bad side": (
        "steps: [{name: a}, {name: b, inputs: [a.foo]}]",
        "pipeline step input invalid pipeline p step b input step a.foo.",
    ),
    "too long": (
        "steps: [{name: a}, {name: b, inputs: [a.outputs.x.y]}]",
        "pipeline step input invalid pipeline p step b input step a.outputs.x.y.",
    ),
    "empty trigger": ("steps: [{name: a, triggers: ['']}]", "pipeline p step a has an empty trigger"),
    "bad trigger": (
        "steps: [{name: a}, {name: b, triggers: [a.foo]}]",
        "pipeline step trigger invalid pipeline p step b input step a.foo.",
    ),
    "unknown input": (
        "steps: [{name: a, inputs: [b]}]",
        "pipeline p step a has input b for step that does not exist",
    ),
    "unknown output": ("steps: [{name: a}]\noutput: {steps: [b]}", "pipeline p output step b not found"),
    "pipeline as output": ("steps: [{name: a}]\noutput: {steps: [p]}", "pipeline p output step p not found"),
    "bad output": ("steps: [{name: a}]\noutput: {steps: [a.foo]}", "pipeline p output specifier a.foo invalid"),
    "cycle": ("steps: [{name: a, inputs: [b]}, {name: b, inputs: [a]}]", "pipeline p has a cycle"),
    "cycle by trigger": ("steps: [{name: a, triggers: [b]}, {name: b, inputs: [a]}]", "pipeline p has a cycle"),
    "reads itself": ("steps: [{name: a, inputs: [a]}]", "pipeline p has a cycle"),
    "no external": (
        "steps: [{name: a}]\ninput: {}",
        "pipeline p input  is invalid. At least one pipeline input must be specified",
    ),
    "empty external": (
        "steps: [{name: a}]\ninput: {externalInputs: ['']}",
        "pipeline p input  is invalid. Input name must not be empty",
    ),
    "external word": (
        "steps: [{name: a}]\ninput: {externalInputs: [q.foo]}",
        "pipeline p input q.foo is invalid. A Pipeline inputs referencing another pipeline must be "
        "<pipeineName>.(inputs|outputs|step.<stepName>)",
    ),
    "external step": (
        "steps: [{name: a}]\ninput: {externalInputs: [q.step.a.foo]}",
        "pipeline p input q.step.a.foo is invalid. A pipeline step must be "
        "<pipelineName>.step.<stepName>.(inputs|outputs)",
    ),
    "external too long": (
        "steps: [{name: a}]\ninput: {externalInputs: [q.outputs.a.b]}",
        "pipeline p input q.outputs.a.b is invalid. The input is too long. It must be "
        "<pipelineName>.(inputs|outputs).(tensorName)? or "
        "<pipelineName>.step.<stepName>.<inputs|outputs>.<tensorName>",
    ),
    # Core 2 accepts these, and then crashes, ignores them or runs forever.
    "underscore": ("steps: [{name: a_b}]", "step 'a_b' can't be the name of a Model"),
    "dot": ("steps: [{name: a.b}]", "step 'a.b' can't be the name of a Model"),
    "unknown trigger": ("steps: [{name: a, triggers: [b]}]", "step 'a' has trigger 'b', but there is no step 'b'"),
    "own outputs": (
        "steps: [{name: a, inputs: [p.outputs, p], inputsJoinType: any}]\noutput: {steps: [a]}",
        "pipeline p makes its outputs from its own outputs",
    ),
    "map of no source": (
        "steps: [{name: a}, {name: b, inputs: [a], tensorMap: {c.outputs.x: y}}]",
        "tensorMap key 'c.outputs.x' matches no input",
    ),
    "map of an unread tensor": (
        "steps: [{name: a}, {name: b, inputs: [a.outputs.x], tensorMap: {a.outputs.y: z}}]",
        "tensorMap key 'a.outputs.y' matches no input",
    ),
    "map without side": (
        "steps: [{name: a}, {name: b, inputs: [a], tensorMap: {a.x: y}}]",
        "tensorMap key 'a.x' matches no input",
    ),
    # The schema of the CRD refuses these.
    "unknown field": ("steps: [{name: a, input: [p]}]", "unknown field 'spec.steps[0].input'; did you mean 'inputs'?"),
    "unknown join": (
        "steps: [{name: a, inputsJoinType: all}]",
        "field 'spec.steps[0].inputsJoinType': input should be",
    ),
    "text for number": ("steps: [{name: a, joinWindowMs: '1'}]", "field 'spec.steps[0].joinWindowMs': input should be"),
    "no name": ("steps: [{inputs: [p]}]", "field 'spec.steps[0].name' is missing"),
}

ACCEPTED = {
    "defaults": "steps: [{name: a}]",
    "forms": "steps: [{name: a, inputs: [p.inputs.t]}, {name: b, inputs: [a, a.outputs, a.inputs.t], triggers: [p]}]",
    "same input and trigger": "steps: [{name: a}, {name: b, inputs: [a], triggers: [a]}]",
    "cycle allowed": "steps: [{name: a, inputs: [b]}, {name: b, inputs: [a]}]\nallowCycles: true\nmaxStepRevisits: 3",
    "after the output": "steps: [{name: a}, {name: log, inputs: [p.outputs]}]\noutput: {steps: [a]}",
    "external": "steps: [{name: a}]\ninput: {externalInputs: [q, q.step.m, q.inputs.t], tensorMap: {q.inputs.t: x}}",
    "everything": """
steps:
- name: a
  joinWindowMs: 5
  batch: {size: 2, windowMs: 3, rolling: true}
- name: b
  inputs: [a]
  triggers: [a]
  triggersJoinType: outer
  tensorMap: {a.outputs.x: y}
output: {steps: [b], stepsJoin: any, joinWindowMs: 7, tensorMap: {b.outputs.x: y}}
dataflow: {cleanTopicsOnDelete: true}
""",
}


def write(folder: Path, spec: str, name: str = "p") -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(manifest_text(spec, name), encoding="utf-8")
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_faulty_manifest_is_refused_with_file_line_and_reason(tmp_path: Path, case: str) -> None:
    spec, reason = REFUSED[case]
    with pytest.raises(SettingsError) as refused:
        load_graphs(write(tmp_path, spec).name, tmp_path)
    place, _, sentence = str(refused.value).partition(": ")
    assert place.startswith("pipeline.yaml:") and place.removeprefix("pipeline.yaml:").isdigit()
    assert sentence.startswith(reason)


@pytest.mark.parametrize("case", ACCEPTED)
def test_manifest_that_core_2_accepts_is_accepted(tmp_path: Path, case: str) -> None:
    (loaded,) = read_manifests(write(tmp_path, ACCEPTED[case]))
    check(loaded)


@pytest.mark.parametrize("name", ["My", "a_b", "a.b", "-a", "a-"])
def test_pipeline_names_are_lower_case_letters_digits_and_hyphens(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"pipeline {name} does not have a valid name - it must be alphanmumeric"):
        load_graphs(write(tmp_path, "steps: [{name: a}]", name).name, tmp_path)


def test_fault_has_its_line(tmp_path: Path) -> None:
    spec = "steps:\n- name: a\n- name: b\n  inputs:\n  - a\n  - c"
    with pytest.raises(SettingsError, match=r"^pipeline\.yaml:10: pipeline p step b has input c for step"):
        load_graphs(write(tmp_path, spec).name, tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: [", "not YAML: line 1"),
        ("- a", "expected a mapping"),
        ("kind: Model", "contains no manifest of kind 'Pipeline'"),
        ("", "contains no manifest of kind 'Pipeline'"),
        ("kind: Pipeline\nkind: Pipeline", "pipeline.yaml:2: key 'kind' appears twice"),
        (manifest_text("steps: [{name: a}]").replace("v1alpha1", "v1"), "field 'apiVersion'"),
        ("\xff", "pipeline.yaml' is not UTF-8 text"),
    ],
)
def test_file_without_a_manifest_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "pipeline.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError) as refused:
        load_graphs("pipeline.yaml", tmp_path)
    assert reason in str(refused.value)


def test_missing_files_and_repeated_pipelines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        load_graphs("missing.yaml", tmp_path)
    name = write(tmp_path, "steps: [{name: a}]").name
    with pytest.raises(SettingsError, match="contain pipeline 'p' twice"):
        load_graphs([name, name], tmp_path)


@pytest.mark.parametrize("readers", [{"p": "q", "q": "p"}, {"p": "p"}])
def test_pipelines_that_read_one_another_in_a_circle_are_refused(tmp_path: Path, readers: dict[str, str]) -> None:
    for name, source in readers.items():
        spec = f"steps: [{{name: a}}]\ninput: {{externalInputs: [{source}.outputs]}}\noutput: {{}}"
        (tmp_path / f"{name}.yaml").write_text(manifest_text(spec, name), encoding="utf-8")
    with pytest.raises(SettingsError, match="read one another in a circle and would run forever: "):
        load_graphs([f"{name}.yaml" for name in readers], tmp_path)


def test_pipelines_of_this_repository_are_valid() -> None:
    from support import ROOT

    for path in sorted({*(ROOT / "pipelines").glob("*.yaml")} - {ROOT / "pipelines/kustomization.yaml"}):
        assert load_graphs(path.name, path.parent)
