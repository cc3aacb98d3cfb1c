"""One tenant is one namespace, whichever way its name comes: REST, gRPC, or over two servers."""

import uuid
from collections.abc import Callable, Iterator

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from pipeline_lab import manifest_text
from support import Server, outputs, text

MEMORY = {
    "implementation": "mlserver_memory.ConversationalMemory",
    "parameters": {"extra": {"database": "filesys", "config": {"namespace_header": "x-shop"}}},
}
TENANT = "Läden 東京 100%"
SPELLINGS = {"utf-8": TENANT.encode(), "percent": b"L%C3%A4den %E6%9D%B1%E4%BA%AC 100%25"}


@pytest.fixture(scope="module")
def servers(mlserver: Callable[..., Server]) -> Iterator[dict[str, tuple[Server, str]]]:
    """Where to ask: the memory itself, and pipelines of another server whose step it is."""
    memory = mlserver({"memory": MEMORY})
    uris = {"rest": memory.url, "grpc": f"grpc://127.0.0.1:{memory.grpc_port}"}
    pipelines = {
        f"over-{kind}": {
            "implementation": "mlserver_pipeline.Pipeline",
            "parameters": {"extra": {"manifest": "p.yaml", "models": uri}},
        }
        for kind, uri in uris.items()
    }
    spec = "steps: [{name: memory}]\noutput: {steps: [memory]}"
    front = mlserver(pipelines, files={f"{name}/p.yaml": manifest_text(spec, name) for name in pipelines})
    yield {"direct": (memory, "memory"), **{name: (front, name) for name in pipelines}}


def turn(number: int) -> list[dict[str, object]]:
    return [text("memory_id", "m"), text("role", "user"), text("content", f"turn {number}")]


def ask(server: Server, model: str, tenant: bytes, tensors: list[dict[str, object]]) -> list[object]:
    headers = [(b"x-shop", tenant), (b"x-request-id", uuid.uuid4().hex.encode())]
    response = httpx2.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": tensors}, headers=headers)
    return outputs(response)["history"]


def ask_grpc(server: Server, model: str, tenant: str, content: str) -> int:
    request = pb.ModelInferRequest(model_name=model)
    for name, value in {"memory_id": "m", "role": "user", "content": content}.items():
        request.inputs.add(name=name, datatype="BYTES", shape=[1]).contents.bytes_contents.append(value.encode())
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        metadata = [("x-shop", tenant), ("x-request-id", uuid.uuid4().hex)]
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata)
    return next(len(each.contents.bytes_contents) for each in answer.outputs if each.name == "history")


def test_every_spelling_and_every_way_reach_one_namespace(servers: dict[str, tuple[Server, str]]) -> None:
    seen = 0
    for server, model in servers.values():
        for spelling in SPELLINGS.values():
            seen += 1
            assert len(ask(server, model, spelling, turn(seen))) == seen
        seen += 1
        assert ask_grpc(server, model, SPELLINGS["percent"].decode(), f"turn {seen}") == seen


def test_latin_1_is_understood(servers: dict[str, tuple[Server, str]]) -> None:
    server, model = servers["direct"]
    assert len(ask(server, model, "Läden".encode(), turn(1))) == 1
    assert len(ask(server, model, "Läden".encode("latin-1"), turn(2))) == 2


@pytest.mark.parametrize("other", ["Laden", "LÄden", "L%C3%84den", "Läden 東京 100"])
def test_another_tenant_sees_nothing(servers: dict[str, tuple[Server, str]], other: str) -> None:
    for server, model in servers.values():
        assert ask(server, model, other.encode(), [text("memory_id", "m")]) == []


def test_a_tenant_that_comes_twice_is_refused_over_rest(servers: dict[str, tuple[Server, str]]) -> None:
    headers = [("x-shop", "a"), ("x-shop", "b")]
    server, model = servers["direct"]
    response = httpx2.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": turn(1)}, headers=headers)
    assert response.status_code == 422
    assert response.json()["error"] == "header 'x-shop' came twice with different values; expected it once"
    twice_the_same = [("x-shop", "a"), ("x-shop", "a")]
    response = httpx2.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": turn(1)}, headers=twice_the_same)
    assert response.status_code == 200


@pytest.mark.parametrize("name", ["x-tenant", "x-request-id", "x-idempotency-key"])
def test_an_identity_that_comes_twice_is_refused_at_a_pipelines_path(
    servers: dict[str, tuple[Server, str]], name: str
) -> None:
    server, pipeline = servers["over-rest"]
    response = httpx2.post(
        f"{server.url}/v2/pipelines/{pipeline}/infer", json={"inputs": turn(1)}, headers=[(name, "a"), (name, "b")]
    )
    assert (response.status_code, response.text) == (
        400,
        f"header '{name}' came twice with different values; expected it once",
    )


def test_a_tenant_that_comes_twice_is_refused_over_grpc(servers: dict[str, tuple[Server, str]]) -> None:
    server, model = servers["direct"]
    request = pb.ModelInferRequest(model_name=model)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel, pytest.raises(grpc.RpcError) as refused:
        GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=[("x-shop", "a"), ("x-shop", "b")])
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
