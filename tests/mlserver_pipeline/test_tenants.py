"""Tenants and identities over REST, gRPC and two remote steps, and a header that callers can't set: on real servers."""

from collections.abc import Callable, Sequence

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from support import Server, text

MODELS = """
from mlserver_chat import Runtime, Settings, request_headers
from mlserver_chat.tensors import text_output

class Echo(Runtime):
    settings_class = Settings

    async def handle(self, request):
        headers = request_headers(request)
        seen = ascii([headers.get(name) for name in ("x-tenant", "x-request-id")])
        return self.response([text_output("seen", [seen])])
"""
MANIFEST = """
apiVersion: mlops.seldon.io/v1alpha1
kind: Pipeline
metadata: {name: %s}
spec:
  steps: [{name: %s}]
  output: {steps: [%s]}
"""
ECHO = {"implementation": "models_of_test.Echo"}


def pipeline(name: str, **extra: object) -> dict[str, object]:
    extra = {"manifest": f"{name}.yaml", **extra}
    return {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": extra}}


@pytest.fixture(scope="module")
def servers(mlserver: Callable[..., Server]) -> dict[str, Server]:
    """A model behind no, one and two remote steps; the last hop over REST or gRPC."""
    files = {"echo/models_of_test.py": MODELS}
    last = mlserver({"echo": ECHO}, files=files)
    inner = {"inner/inner.yaml": MANIFEST % ("inner", "echo", "echo")}
    outer = {"outer/outer.yaml": MANIFEST % ("outer", "inner", "inner")}
    first = {"here": last}
    for name, uri in (("rest", last.url), ("grpc", f"grpc://127.0.0.1:{last.grpc_port}")):
        middle = mlserver({"inner": pipeline("inner", models=uri)}, files=inner)
        other = f"grpc://127.0.0.1:{middle.grpc_port}" if name == "rest" else middle.url
        first[name] = mlserver({"outer": pipeline("outer", models=other)}, files=outer)
    return first


Headers = Sequence[tuple[str, bytes]]


def ask(server: Server, model: str, headers: Headers) -> httpx2.Response:
    body = {"inputs": [text("x", "y")]}
    url = f"{server.url}/v2/models/{model}/infer"
    return httpx2.post(url, json=body, headers=[(name.encode(), value) for name, value in headers], timeout=20)


def ask_grpc(server: Server, model: str, metadata: Sequence[tuple[str, str]]) -> str:
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"y")
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata, timeout=20)
    return answer.outputs[0].contents.bytes_contents[0].decode()


SAME = [b"Zo\xc3\xab", b"Zo\xeb", b"Zo%C3%AB"]
APART = ["Zoë", "ZoÃ«", "日本", "a%62", "ab", "Zo%EB", "ë%62"]


@pytest.mark.parametrize(("where", "model"), [("here", "echo"), ("rest", "outer"), ("grpc", "outer")])
def test_a_tenant_is_the_same_by_every_way(servers: dict[str, Server], where: str, model: str) -> None:
    server = servers[where]
    for value in SAME:
        answer = ask(server, model, [("x-tenant", value), ("x-request-id", value)])
        assert answer.json()["outputs"][0]["data"] == [ascii(["Zoë", "Zoë"])]
    metadata = [("x-tenant", "Zo%C3%AB"), ("x-request-id", "Zo%C3%AB")]
    assert ask_grpc(server, model, metadata) == ascii(["Zoë", "Zoë"])


@pytest.mark.parametrize(("where", "model"), [("here", "echo"), ("rest", "outer"), ("grpc", "outer")])
def test_tenants_stay_apart(servers: dict[str, Server], where: str, model: str) -> None:
    for tenant in APART:
        answer = ask(servers[where], model, [("x-tenant", tenant.encode()), ("x-request-id", b"1")])
        assert answer.json()["outputs"][0]["data"] == [ascii([tenant, "1"])]


def test_a_caller_cannot_set_the_header_that_the_mesh_sets(mlserver: Callable[..., Server]) -> None:
    manifest = {"manifest": ["first.yaml", "second.yaml"]}
    both = {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": manifest}}
    upper = MODELS.replace('"seen"', '"other"')
    files = {f"first/{name}.yaml": MANIFEST % (name, f"echo-{name}", f"echo-{name}") for name in ("first", "second")}
    files |= {"echo-first/models_of_test.py": MODELS, "echo-second/models_of_test.py": upper}
    server = mlserver({"first": both, "echo-first": ECHO, "echo-second": ECHO}, files=files)
    for headers, name in (
        ([("seldon-internal-model", b"second.pipeline")], "seen"),
        ([("seldon-model", b"second.pipeline"), ("seldon-internal-model", b"first.pipeline")], "other"),
    ):
        assert ask(server, "first", headers).json()["outputs"][0]["name"] == name
