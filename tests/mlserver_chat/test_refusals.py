"""Requests that every runtime refuses before it does anything, over REST and gRPC, in a real MLServer."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from mlserver_chat.testing import OpenAIServer
from support import Server, outputs, text

PIPELINE = """
apiVersion: mlops.seldon.io/v1alpha1
kind: Pipeline
metadata: {name: chat}
spec:
  steps: [{name: memory}]
  output: {steps: [memory]}
"""
TURN = [text("memory_id", "m"), text("role", "user"), text("content", "hello")]
MEMORY = {"database": "filesys", "config": {"tensor_names": ["role", "content", "type", "tool_calls"]}}
STRANGE_IDS = ["two\nlines", "日本", "é", "tab\there", " edge", "x" * 256]


@pytest.fixture(scope="module")
def api() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server], api: OpenAIServer) -> Server:
    config = {"model_id": "m", "base_url": api.base_url, "api_key": "k", "max_retries": 0}
    models = {
        "memory": ("mlserver_memory.ConversationalMemory", MEMORY),
        "api": ("mlserver_llm_api.LLMRuntime", {"provider_id": "openai", "config": config}),
        "chat": ("mlserver_pipeline.Pipeline", {"manifest": "chat.yaml"}),
    }
    settings = {
        name: {"implementation": kind, "parameters": {"extra": extra}} for name, (kind, extra) in models.items()
    }
    return mlserver(settings, files={"chat/chat.yaml": PIPELINE})


@pytest.fixture(autouse=True)
def _nothing_is_done(server: Server, api: OpenAIServer) -> Iterator[None]:
    api.reset()
    yield
    assert outputs(server.infer("memory", [text("memory_id", "m")]))["history"] == []
    assert api.received == []


def grpc_status(server: Server, model: str, inputs: list[dict[str, Any]], id: str = "", stream: bool = False) -> str:
    """The code and the sentence of the error that a gRPC client gets; of a stream, also that of its last response."""
    tensors = [
        pb.ModelInferRequest.InferInputTensor(
            name=tensor["name"],
            shape=tensor["shape"],
            datatype=tensor["datatype"],
            contents=pb.InferTensorContents(bytes_contents=[element.encode() for element in tensor["data"]]),
        )
        for tensor in inputs
    ]
    message = pb.ModelInferRequest(model_name=model, id=id, inputs=tensors)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        try:
            if not stream:
                return f"OK {stub.ModelInfer(message, timeout=30)}"
            (only,) = stub.ModelStreamInfer(iter([message]), timeout=30)
            return f"{only.parameters['status'].int64_param} {only.parameters['error'].string_param}"
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}"


@pytest.mark.parametrize("model", ["memory", "api", "chat"])
@pytest.mark.parametrize("id", STRANGE_IDS)
def test_an_id_that_no_header_can_carry_is_refused(server: Server, model: str, id: str) -> None:
    answer = server.infer(model, TURN, id=id)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"].startswith("'id' ")
    url = f"{server.url}/v2/models/{model}/infer_stream"
    streamed = httpx2.post(url, json={"inputs": TURN, "id": id}, timeout=30)
    assert streamed.status_code == 200 and '"status":422' in streamed.text and "'id' " in streamed.text
    assert grpc_status(server, model, TURN, id).startswith("FAILED_PRECONDITION 'id' ")
    assert grpc_status(server, model, TURN, id, stream=True).startswith("422 'id' ")


@pytest.mark.parametrize("name", ["a\n2026-11-21 a forged line", "n" * 256])
def test_an_unprintable_or_long_tensor_name_is_refused(server: Server, name: str) -> None:
    tensors = [*TURN, text(name, "x")]
    assert server.infer("memory", tensors).status_code == 422
    assert grpc_status(server, "memory", tensors).startswith("FAILED_PRECONDITION invalid tensor name")


@pytest.mark.parametrize("model", ["memory", "api", "chat"])
def test_an_unknown_datatype_is_refused(server: Server, model: str) -> None:
    tensor = text("extra", "x") | {"datatype": "STRING"}
    assert server.infer(model, [*TURN, tensor]).status_code == 422
    sentence = "FAILED_PRECONDITION tensor 'extra' has the unknown datatype 'STRING'"
    assert grpc_status(server, model, [*TURN, tensor]).startswith(sentence)


@pytest.mark.parametrize("model", ["memory", "api", "chat"])
@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ([-1], "tensor 'content' has shape [-1]; expected sizes from 0 on"),
        ([1, -1], "tensor 'content' has shape [1, -1]; expected sizes from 0 on"),
        ([0], "tensor 'content' has data under shape [0], which holds none"),
        ([0, 1], "tensor 'content' has data under shape [0, 1], which holds none"),
    ],
)
def test_a_shape_that_contradicts_the_data_is_refused(
    server: Server, model: str, shape: list[int], sentence: str
) -> None:
    inputs = [*TURN[:2], text("content", "hello", shape=shape)]
    answer = server.infer(model, inputs)
    assert (answer.status_code, answer.json().get("error")) == (422, sentence)
    assert grpc_status(server, model, inputs) == f"FAILED_PRECONDITION {sentence}"


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize("model", ["memory", "api"])
def test_nan_and_infinity_in_json_are_refused(server: Server, model: str, number: str) -> None:
    call = f'{{"id": "c", "type": "function", "function": {{"name": "f", "arguments": {number}}}}}'
    tools = [text("role", "assistant"), text("tool_calls", call)]
    records = [text("history", f'{{"role": "user", "content": [], "x": {number}}}'), *TURN]
    options = [*TURN, text("llm_parameters", f'{{"temperature": {number}}}')]
    for inputs in (tools, options, *([records] if model == "api" else [])):
        answer = server.infer(model, [text("memory_id", "m"), *inputs])
        assert answer.status_code == 422 and "is not JSON" in answer.json()["error"], answer.text
