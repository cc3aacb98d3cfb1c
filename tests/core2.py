"""What Core 2 does to manifests and models, as far as it is known: the operator, the scheduler and the agent."""

import json
import shutil
from pathlib import Path
from typing import Any

KEPT = ("name", "platform", "versions", "parallel_workers", "implementation")
KEPT_OF_A_TENSOR = ("name", "shape", "datatype")
KEPT_PARAMETERS = ("uri", "version", "format", "content_type", "extra", "environment_tarball")

SERVER_CONFIG_PORTS = {
    "http": 9001,
    "grpc": 9501,
    "metrics": 9006,
    "server-http": 9000,
    "server-grpc": 9500,
    "server-metrics": 8082,
}
"""The ports of the ServerConfig `mlserver`, by name: the agent's three, then MLServer's."""


def pod_labels(server: dict[str, Any]) -> dict[str, str]:
    """The labels that the operator gives to a Server's pods."""
    own = server["metadata"].get("labels", {})
    return {**own, "seldon-server-name": server["metadata"]["name"], "app.kubernetes.io/name": "seldon-server"}


def rewritten(settings: dict[str, Any], manifest: dict[str, Any] | None = None, mesh: str = "") -> dict[str, Any]:
    """A `model-settings.json` as the agent writes it for MLServer: keys that it doesn't know are gone, and the Model
    manifest's name, parameters and LLM are in.

    Args:
        settings: the file's content.
        manifest: the Model; without one only the loss of keys is shown.
        mesh: where Envoy listens, `http://host:port`.
    """
    kept = {key: settings[key] for key in KEPT if key in settings}
    for side in ("inputs", "outputs"):
        if side in settings:
            kept[side] = [{key: tensor[key] for key in KEPT_OF_A_TENSOR if key in tensor} for tensor in settings[side]]
    parameters = {key: value for key, value in settings.get("parameters", {}).items() if key in KEPT_PARAMETERS}
    extra = dict(parameters.get("extra", {}))
    if manifest is not None:
        kept["name"] = generation_name(manifest["metadata"]["name"])
        parameters["version"] = "1"
        extra.update({each["name"]: each["value"] for each in manifest["spec"].get("parameters", [])})
        if llm := manifest["spec"].get("llm"):
            extra["infer_uri"] = f"{mesh}/v2/models/{llm['modelRef']}/infer"
            kept["parallel_workers"] = 0
    if extra:
        parameters["extra"] = extra
    return json.loads(json.dumps({**kept, "parameters": parameters}))


def generation_name(model: str) -> str:
    """What a model is called in MLServer."""
    return f"{model}_1"


def place_model(manifest: dict[str, Any], storage: Path, models: Path, mesh: str = "") -> Path:
    """Copy a Model's folder from its storage to where MLServer of Core 2 finds it, with its settings rewritten."""
    name = manifest["metadata"]["name"]
    folder = models / generation_name(name) / "1"
    shutil.copytree(storage / manifest["spec"]["storageUri"].rsplit("/", 1)[1], folder)
    file = folder / "model-settings.json"
    content = rewritten(json.loads(file.read_text(encoding="utf-8")), manifest, mesh)
    file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def schedulable(model: dict[str, Any], servers: dict[str, dict[str, Any]]) -> list[str]:
    """The Servers with all capabilities that a Model requires, by name."""
    wanted = set(model["spec"]["requirements"])
    return [name for name, server in servers.items() if wanted <= set(server["spec"]["capabilities"])]
