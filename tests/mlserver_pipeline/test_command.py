"""The command `mlserver-llm pipeline`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlserver_llm_cli.pipeline import pipeline
from pipeline_lab import manifest_text
from support import ROOT, Server

DESK = str(ROOT / "pipelines/support-chat.yaml")
ECHO = """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import MLServerError
from mlserver.types import InferenceResponse

class Echo(MLModel):
    async def predict(self, payload):
        (text,) = StringCodec.decode_input(payload.inputs[0])
        if text == "fail":
            raise MLServerError("no", 422)
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output(self.name, [text + "!"])])
"""
CHAIN = "steps: [{name: a}, {name: b, inputs: [a]}]\noutput: {steps: [b]}"


def mlserver_llm(*arguments: object) -> Result:
    return CliRunner().invoke(pipeline, list(map(str, arguments)))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(manifest_text(CHAIN), encoding="utf-8")
    return path


def test_lint_reports_nothing_for_valid_manifests() -> None:
    result = mlserver_llm("lint", ROOT / "pipelines", "--models", ROOT / "models", "--strict")
    assert result.exit_code == 0, result.output


def test_lint_exits_1_on_errors_and_with_strict_on_warnings(tmp_path: Path) -> None:
    for spec, codes in (("steps: [{name: a_b}]", (1, 1)), ("steps: [{name: a}]", (0, 1))):
        (tmp_path / "p.yaml").write_text(manifest_text(spec), encoding="utf-8")
        (tmp_path / "values.yaml").write_text("other: true")
        assert (mlserver_llm("lint", tmp_path).exit_code, mlserver_llm("lint", tmp_path, "--strict").exit_code) == codes


def test_lint_fails_for_a_folder_without_manifests(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("replicas: 1\n", encoding="utf-8")
    result = mlserver_llm("lint", tmp_path)
    assert (result.exit_code, "no manifest of Seldon Core 2 found" in result.output) == (1, True)


def test_lint_prints_text_json_and_github_commands(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(manifest_text("steps: [{name: a, input: [p]}]"), encoding="utf-8")
    sentence = "unknown field 'spec.steps[0].input'; did you mean 'inputs'?"
    assert f"{path}:5: error: {sentence} [schema]" in mlserver_llm("lint", path).output
    (finding,) = json.loads(mlserver_llm("lint", path, "--format", "json").output)
    assert (finding["rule"], finding["line"], finding["sentence"]) == ("schema", 5, sentence)
    assert (
        f"::error file={path},line=5,title=schema::{sentence}"
        in mlserver_llm("lint", path, "--format", "github").output
    )


def test_explain_tells_which_steps_fire_and_what_the_others_wait_for() -> None:
    result = mlserver_llm("explain", DESK, "--emits", "route-request=issue_number,status")
    lines = {line.split()[0]: line for line in result.output.splitlines() if line and not line.startswith(" ")}
    assert lines["answer-status"].split()[1] == "yes" and lines["answer-support"].split()[1] == "no"
    assert "support-chat answers" in result.output
    assert "gets no answer" in mlserver_llm("explain", DESK, "--emits", "route-request=issue_number").output
    assert mlserver_llm("explain", DESK, "--emits", "nobody=x").exit_code == 2


def test_explain_accepts_the_tensors_of_the_request(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(manifest_text("steps: [{name: a, inputs: [p.inputs.x]}]\noutput: {steps: [a]}"), encoding="utf-8")
    assert "p answers" in mlserver_llm("explain", path, "--input", "x").output
    assert "p.inputs came without it" in mlserver_llm("explain", path, "--input", "y").output.replace("\n", " ")


def test_schema_has_every_field_and_no_other() -> None:
    schema = json.loads(mlserver_llm("schema").output)
    assert set(schema["required"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert schema["$defs"]["Step"]["additionalProperties"] is False
    assert "triggersJoinType" in schema["$defs"]["Step"]["properties"]


def test_run_calls_models_of_a_server_without_a_pipeline_runtime(
    manifest: Path, mlserver: Callable[..., Server]
) -> None:
    models = {name: {"implementation": "echo.Echo"} for name in "ab"}
    server = mlserver(models, files={f"{name}/echo.py": ECHO for name in "ab"})
    for url in (server.url, f"grpc://127.0.0.1:{server.grpc_port}"):
        result = mlserver_llm("run", manifest, "--url", url, "--input", "text=hey")
        assert result.exit_code == 0 and json.loads(result.output) == {"b": ["hey!!"]}, result.output
    traced = mlserver_llm("run", manifest, "--url", server.url, "--input", "text=hey", "--trace")
    assert [json.loads(row)["step"] for row in json.loads(traced.output)["trace"]] == ["a", "b"]
    failed = mlserver_llm("run", manifest, "--url", server.url, "--input", "text=fail")
    assert failed.exit_code == 1 and "a : rpc error: code = FailedPrecondition desc = no" in failed.output


def test_run_and_explain_name_wrong_arguments(manifest: Path) -> None:
    assert mlserver_llm("run", manifest, "--url", "ftp://x", "--input", "a=b").exit_code == 2
    assert mlserver_llm("run", manifest, "--url", "http://x", "--input", "a=b", "--pipeline", "q").exit_code == 2
    manifest.write_text("kind: Model")
    result = mlserver_llm("explain", manifest)
    assert result.exit_code == 1 and "contains no manifest of kind 'Pipeline'" in result.output
