"""Seldon's resources: every field of the CRDs, no other field, and what Core 2 refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from mlserver_llm_cli.pipeline import pipeline
from mlserver_pipeline.manifests.crds import KINDS
from mlserver_pipeline.manifests.lint import lint_file

FULL: dict[str, str] = {
    "Model": """
        storageUri: s3://models/a
        artifactVersion: 2
        secretName: storage
        schemaUri: s3://models/a/schema
        modelType: python
        requirements: [mlserver-llm]
        memory: 100Mi
        server: mlserver-llm
        preloaded: false
        dedicated: false
        replicas: 2
        minReplicas: 1
        maxReplicas: 3
        parameters: [{name: config.url, value: "env:URL"}]
        logger: {percent: 10}
        llm: {modelRef: llm}
        dataflow: {cleanTopicsOnDelete: true}
    """,
    "Server": """
        serverConfig: mlserver
        capabilities: [mlserver-llm]
        extraCapabilities: [python]
        podSpec: {containers: [{name: mlserver, image: "mlserver-llm:0.1.0"}]}
        imageOverrides: {agent: {image: "agent:1"}, rclone: {image: "rclone:1"}}
        replicas: 2
        minReplicas: 1
        maxReplicas: 3
        deploymentStrategy: {type: RollingUpdate}
        statefulSetPersistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Retain}
        disableAutoUpdate: true
    """,
    "ServerConfig": """
        podSpec: {containers: [{name: mlserver}]}
        volumeClaimTemplates: [{name: models, spec: {accessModes: [ReadWriteOnce]}}]
    """,
    "Experiment": """
        default: a
        resourceType: model
        candidates: [{name: a, weight: 90}, {name: b, weight: 10}]
        mirror: {name: c, percent: 100}
    """,
    "Pipeline": """
        steps: [{name: a}]
        output: {steps: [a]}
    """,
}


def document(kind: str, spec: str | dict[str, Any], name: str = "a-model") -> str:
    content = yaml.safe_load(spec) if isinstance(spec, str) else spec
    head = {"apiVersion": "mlops.seldon.io/v1alpha1", "kind": kind, "metadata": {"name": name}}
    return yaml.safe_dump({**head, "spec": content, "status": {"replicas": 1}})


@pytest.mark.parametrize("kind", FULL)
def test_resources_and_their_schemas_have_every_field(tmp_path: Path, kind: str) -> None:
    (tmp_path / "r.yaml").write_text(document(kind, FULL[kind]), encoding="utf-8")
    assert lint_file(tmp_path / "r.yaml") == []
    given = set(yaml.safe_load(FULL[kind]))
    fields = {field.alias for field in KINDS[kind].model_fields["spec"].annotation.model_fields.values()}  # type: ignore[union-attr]
    # A Model can't set both explainer and llm. Other tests cover a Pipeline's fields.
    assert kind == "Pipeline" or fields - given <= {"explainer"}
    schema = json.loads(CliRunner().invoke(pipeline, ["schema", kind]).output)
    content = yaml.safe_load(document(kind, FULL[kind]))
    Draft202012Validator(schema).validate(content)
    content["spec"]["nonsense"] = 1
    assert not Draft202012Validator(schema).is_valid(content)


MODEL = {"storageUri": "s3://a"}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "misspelt": ("Model", {"storageURI": "s3://a"}, "unknown field 'spec.storageURI'; did you mean 'storageUri'?"),
    "misspelt below": (
        "Model",
        {**MODEL, "llm": {"modelref": "a"}},
        "unknown field 'spec.llm.modelref'; did you mean 'modelRef'?",
    ),
    "field of another resource": (
        "Model",
        {**MODEL, "llm": {"steps": []}},
        "unknown field 'spec.llm.steps'",
    ),
    "no storage": ("Model", {}, "field 'spec.storageUri' is missing"),
    "a number as a setting": (
        "Model",
        {**MODEL, "parameters": [{"name": "config.window_size", "value": 50}]},
        "field 'spec.parameters[0].value': input should be a valid string",
    ),
    "no quantity": ("Model", {**MODEL, "memory": "100MB"}, "string should match pattern"),
    "llm and explainer": (
        "Model",
        {**MODEL, "llm": {"modelRef": "b"}, "explainer": {"type": "t", "modelRef": "b"}},
        "Can't have both explainer and llm in model spec.",
    ),
    "llm of nothing": ("Model", {**MODEL, "llm": {}}, "exactly one is needed"),
    "too few": ("Model", {**MODEL, "replicas": 1, "minReplicas": 2}, "number of replicas 1 must be >= min replicas 2"),
    "too many": ("Server", {"serverConfig": "m", "replicas": 3, "maxReplicas": 2}, "must be <= max replicas 2"),
    "no server config": ("Server", {"capabilities": ["a"]}, "field 'spec.serverConfig' is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_lint_reports_what_core_2_refuses_as_errors(tmp_path: Path, case: str) -> None:
    kind, spec, sentence = REFUSED[case]
    (tmp_path / "r.yaml").write_text(document(kind, spec), encoding="utf-8")
    findings = lint_file(tmp_path / "r.yaml")
    assert findings and all(finding.level == "error" and finding.fix for finding in findings)
    assert any(finding.sentence.endswith(sentence) or sentence in finding.sentence for finding in findings)


def test_model_names_are_valid_step_names(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(document("Model", MODEL, name="a.b"), encoding="utf-8")
    assert [finding.rule for finding in lint_file(tmp_path / "r.yaml")] == ["model-name"]


def test_replicas_default_to_the_minimum(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(document("Model", {**MODEL, "minReplicas": 2, "maxReplicas": 4}), encoding="utf-8")
    assert lint_file(tmp_path / "r.yaml") == []


def test_resources_of_other_projects_are_skipped(tmp_path: Path) -> None:
    other = "apiVersion: tekton.dev/v1\nkind: Pipeline\nmetadata: {name: p}\nspec: {tasks: []}\n"
    (tmp_path / "r.yaml").write_text(other, encoding="utf-8")
    assert lint_file(tmp_path / "r.yaml") == []
    (tmp_path / "r.yaml").write_text(other.replace("tekton.dev/v1", "mlops.seldon.io/v2"), encoding="utf-8")
    assert {finding.rule for finding in lint_file(tmp_path / "r.yaml")} == {"schema"}
