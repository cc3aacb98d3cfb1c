"""Imitates what Core 2's operator, scheduler, agent and mesh do to manifests, models and calls."""

import http.server
import json
import re
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx2
from mlserver.grpc.dataplane_pb2 import ModelInferRequest, ModelInferResponse
from mlserver.grpc.dataplane_pb2_grpc import (
    GRPCInferenceServiceServicer,
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)

from support import Server

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
    """Return the labels that the operator gives to the pods of a Server."""
    own = server["metadata"].get("labels", {})
    return {**own, "seldon-server-name": server["metadata"]["name"], "app.kubernetes.io/name": "seldon-server"}


def rewritten(settings: dict[str, Any], manifest: dict[str, Any] | None = None, mesh: str = "") -> dict[str, Any]:
    """Rewrite a `model-settings.json` as the agent does: drop unknown keys, add what the Model manifest sets.

    Args:
        settings: content of the file.
        manifest: the Model; without one, only unknown keys are dropped.
        mesh: address of Envoy, `http://host:port`.
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
    """Return the name of a model in MLServer."""
    return f"{model}_1"


def place_model(manifest: dict[str, Any], storage: Path, models: Path, mesh: str = "") -> Path:
    """Copy a Model's folder from its storage to MLServer's repository, with rewritten settings."""
    name = manifest["metadata"]["name"]
    folder = models / generation_name(name) / "1"
    shutil.copytree(storage / manifest["spec"]["storageUri"].rsplit("/", 1)[1], folder)
    file = folder / "model-settings.json"
    content = rewritten(json.loads(file.read_text(encoding="utf-8")), manifest, mesh)
    file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def schedulable(model: dict[str, Any], servers: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the Servers that have all capabilities that a Model requires."""
    wanted = set(model["spec"]["requirements"])
    return [name for name, server in servers.items() if wanted <= set(server["spec"]["capabilities"])]


class Mesh:
    """Envoy and the proxies of the agents, over REST and gRPC.

    Sends a call to the Server that has the model, under the model's name there. `hosts` may change while it runs.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, Server] = {}
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _rest_handler(self.hosts))
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._grpc = grpc.server(ThreadPoolExecutor(8))
        add_GRPCInferenceServiceServicer_to_server(_GrpcProxy(self.hosts), self._grpc)
        self.grpc_url = f"grpc://127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()

    def close(self) -> None:
        """Stop taking calls."""
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait(10)


def _rest_handler(hosts: Mapping[str, Server]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found = re.fullmatch(r"/v2/models/([\w-]+)/infer", self.path)
            if found is None or found[1] not in hosts:
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers["content-length"]))
            path = f"/v2/models/{generation_name(found[1])}/infer"
            kept = {key: value for key, value in self.headers.items() if key.lower().startswith(("x-", "content-type"))}
            answer = httpx2.post(hosts[found[1]].url + path, content=body, headers=kept, timeout=60)
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers["content-type"])
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class _GrpcProxy(GRPCInferenceServiceServicer):
    def __init__(self, hosts: Mapping[str, Server]):
        self._hosts = hosts

    def ModelInfer(self, request: ModelInferRequest, context: grpc.ServicerContext) -> ModelInferResponse:
        metadata = list(context.invocation_metadata())
        model = dict(metadata)["seldon-model"]
        request.model_name, request.model_version = generation_name(model), ""
        kept = [(key, value) for key, value in metadata if key.startswith(("x-", "seldon-"))]
        with grpc.insecure_channel(f"127.0.0.1:{self._hosts[model].grpc_port}") as channel:
            try:
                return GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=kept, timeout=60)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())  # type: ignore[attr-defined]
                raise
