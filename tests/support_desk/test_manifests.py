"""The manifests of the support desk belong to its models and its pipeline, and survive Core 2's agent."""

import json
from typing import Any

import pytest
import yaml

from support import ROOT

MANIFESTS = ROOT / "manifests"
MODELS: dict[str, dict[str, Any]] = {
    document["metadata"]["name"]: document
    for document in yaml.safe_load_all((MANIFESTS / "models.yaml").read_text(encoding="utf-8"))
}
SERVER: dict[str, Any] = yaml.safe_load((MANIFESTS / "server.yaml").read_text(encoding="utf-8"))
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "pipelines/support-chat.yaml").read_text(encoding="utf-8"))

KEPT_BY_THE_AGENT = {
    *("name", "platform", "versions", "parallel_workers", "implementation", "parameters"),
    *("inputs", "outputs"),
}
KEPT_OF_A_TENSOR = {"name", "shape", "datatype"}
KEPT_PARAMETERS = {"uri", "version", "format", "content_type", "extra", "environment_tarball"}


def settings_of(model: str) -> dict[str, Any]:
    return json.loads((ROOT / "models" / model / "model-settings.json").read_text(encoding="utf-8"))


def test_every_step_of_the_pipeline_has_a_model() -> None:
    steps = {step["name"] for step in PIPELINE["spec"]["steps"]}
    assert steps | {"support-tiny"} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_server_can_host_the_model(name: str) -> None:
    spec = MODELS[name]["spec"]
    assert set(spec["requirements"]) <= set(SERVER["spec"]["capabilities"])
    assert spec["storageUri"].endswith(f"/{name}")
    assert settings_of(name)["name"] == name


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_names_an_llm_is_bound_to_it(name: str) -> None:
    llm = settings_of(name).get("parameters", {}).get("extra", {}).get("llm")
    assert MODELS[name]["spec"].get("llm", {}).get("modelRef") == llm


@pytest.mark.parametrize("name", MODELS)
def test_core_2s_agent_strips_nothing_of_the_settings(name: str) -> None:
    settings = settings_of(name)
    assert set(settings) <= KEPT_BY_THE_AGENT
    assert set(settings.get("parameters", {})) <= KEPT_PARAMETERS
    for tensor in [*settings.get("inputs", []), *settings.get("outputs", [])]:
        assert set(tensor) <= KEPT_OF_A_TENSOR


def test_the_memory_models_take_their_database_from_the_secret() -> None:
    env = {item["name"]: item for item in SERVER["spec"]["podSpec"]["containers"][0]["env"]}
    assert env["MEMORY_URL"]["valueFrom"]["secretKeyRef"]["name"] == "support-desk-memory"
    for name in ("remember-user", "remember-assistant"):
        assert MODELS[name]["spec"]["parameters"] == [{"name": "config.url", "value": "env:MEMORY_URL"}]
