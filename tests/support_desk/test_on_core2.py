"""The support desk as Core 2 runs it: the agent rewrites the settings, each Server process loads its models one by one,
calls pass through a mesh, and conversations are in PostgreSQL. Everything but Kafka and the cluster is real."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result
from mlserver.repository.load import load_model_settings

from core2 import Mesh, generation_name, place_model, rewritten, schedulable
from databases import sql_url
from kustomize import of_kind, render
from mlserver_chat import Runtime, Settings, load_settings
from mlserver_llm_cli.main import main
from support import ROOT, Server, outputs, start_mlserver, text

SETTINGS = sorted([*ROOT.glob("models/*/model-settings.json"), *ROOT.glob("examples/**/model-settings.json")])


def effective(folder: Path) -> tuple[dict[str, Any], Settings | None]:
    """Return the settings that MLServer reads for a model, and those of its runtime if it belongs to the suite."""
    settings = load_model_settings(str(folder / "model-settings.json"))
    runtime = settings.implementation
    config = load_settings(runtime.settings_class, settings) if issubclass(runtime, Runtime) else None
    return settings.model_dump(exclude={"name": True, "parameters": {"uri", "version"}}), config


@pytest.mark.parametrize("file", SETTINGS, ids=lambda file: str(file.parent.relative_to(ROOT)))
def test_the_agent_changes_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    folder = tmp_path / "rewritten"
    shutil.copytree(file.parent, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    content = json.loads(file.read_text(encoding="utf-8"))
    (folder / "model-settings.json").write_text(json.dumps(rewritten(content)), encoding="utf-8")
    assert effective(folder) == effective(file.parent)


def test_the_check_finds_a_key_that_the_agent_drops(tmp_path: Path) -> None:
    content = {"name": "m", "implementation": "mlserver.MLModel", "max_batch_size": 4}
    found: list[Any] = []
    for each in (content, rewritten(content)):
        (tmp_path / "model-settings.json").write_text(json.dumps(each), encoding="utf-8")
        found.append(effective(tmp_path))
    assert found[0] != found[1]


@pytest.mark.parametrize("overlay", ["development", "production"])
def test_manifests_change_only_the_parameters_that_they_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: str
) -> None:
    url = "postgresql+psycopg://support:secret@support-desk-postgres:5432/support"
    monkeypatch.setenv("MEMORY_URL", url)
    for name, model in of_kind(render(overlay), "Model").items():
        folder = place_model(model, ROOT / "models", tmp_path / name, "http://seldon-mesh:80")
        _, config = effective(folder)
        if config is None:
            continue
        own = ROOT / "models" / model["spec"]["storageUri"].rsplit("/", 1)[1]
        _, written = effective(own)
        assert written is not None
        after, before = config.model_dump(), written.model_dump()
        changed = {key for key in after if after[key] != before[key]}
        llm = {"infer_uri"} if "llm" in model["spec"] else set()
        assert changed == llm | {each["name"].partition(".")[0] for each in model["spec"].get("parameters", [])}
        if llm:
            # The manifest binds the model that the settings name.
            assert after["infer_uri"] == f"http://seldon-mesh:80/v2/models/{before['llm']}/infer"


@dataclass
class Desk:
    """The processes of the Servers and the mesh in front of them."""

    mesh: Mesh
    servers: dict[str, Server]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The Servers and Models of production, and the candidate of the experiment in development."""
    database = sql_url("psycopg", "support_desk_on_core2", tmp_path_factory.getbasetemp())
    documents = render("production")
    servers, models = (
        of_kind(documents, "Server"),
        of_kind(render("development"), "Model") | of_kind(documents, "Model"),
    )
    mesh = Mesh()
    running: dict[str, Server] = {}
    secrets = {"support-desk-postgres": {"url": database}}
    try:
        for name, server in servers.items():
            tmp = tmp_path_factory.mktemp(name)
            (tmp / "models").mkdir()
            hosted = [model for model in models.values() if schedulable(model, servers) == [name]]
            for model in hosted:
                place_model(model, ROOT / "models", tmp / "models", mesh.url)
            env = {"MLSERVER_LOAD_MODELS_AT_STARTUP": "false", **environment(server, secrets)}
            running[name] = start_mlserver(tmp / "models", tmp, env)
            mesh.hosts.update({model["metadata"]["name"]: running[name] for model in hosted})
        for name, host in mesh.hosts.items():
            loaded = httpx2.post(f"{host.url}/v2/repository/models/{generation_name(name)}/load", timeout=120)
            assert loaded.status_code == 200, loaded.text
        yield Desk(mesh, running)
    finally:
        mesh.close()
        for server in running.values():
            server.stop()


def environment(server: dict[str, Any], secrets: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the environment variables of a Server's container."""
    (container,) = server["spec"]["podSpec"]["containers"]
    references = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    plain = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    return plain | {name: secrets[each["name"]][each["key"]] for name, each in references.items()}


def run_pipeline(desk: Desk, inputs: dict[str, str]) -> Result:
    """Run the pipeline of the manifests, calling its steps over gRPC as Core 2 does."""
    arguments = [word for key, value in inputs.items() for word in ("--input", f"{key}={value}")]
    manifest = str(ROOT / "pipelines/support-chat.yaml")
    return CliRunner().invoke(main, ["pipeline", "run", manifest, "--url", desk.mesh.grpc_url, *arguments])


def turn(desk: Desk, content: str) -> dict[str, list[str]]:
    """Send one turn of a conversation."""
    result = run_pipeline(desk, {"memory_id": "on-core-2", "role": "user", "content": content, "type": "text"})
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_two_turns_pass_through_the_mesh_and_the_database(desk: Desk) -> None:
    first = turn(desk, "What is the status of BUG-771?")
    assert "BUG-771" in first["content"][0] and len(first["history"]) == 2
    second = turn(desk, "My printer is jammed.")
    assert second["history"][:2] == first["history"] and len(second["history"]) == 4


def test_each_server_loads_only_its_own_models(desk: Desk) -> None:
    for name, server in desk.servers.items():
        index = httpx2.post(f"{server.url}/v2/repository/index", json={"ready": True}).json()
        assert {each["name"] for each in index} == {
            generation_name(model) for model, host in desk.mesh.hosts.items() if host is desk.servers[name]
        }


def test_candidates_of_the_experiment_differ_by_prompt_version(desk: Desk) -> None:
    (experiment,) = of_kind(render("development"), "Experiment").values()
    message = [text("role", "user"), text("content", "My mouse is dead."), text("type", "text")]
    versions: list[str] = []
    for candidate in experiment["spec"]["candidates"]:
        address = f"{desk.mesh.url}/v2/models/{candidate['name']}/infer"
        response = httpx2.post(address, json={"inputs": message}, timeout=60)
        assert outputs(response)["content"]
        versions.append(response.json()["parameters"]["prompt_version"])
    assert versions == ["1", "2"]


def test_an_error_of_a_step_reaches_the_caller_over_grpc(desk: Desk) -> None:
    result = run_pipeline(desk, {"memory_id": "on-core-2", "role": "assistant", "content": "hi", "type": "text"})
    assert result.exit_code == 1
    assert "remember-user : rpc error: code = FailedPrecondition" in result.output
