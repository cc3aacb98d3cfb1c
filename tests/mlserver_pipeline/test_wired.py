"""Pipelines in a whole server: settings reach the runner, MLServer's codecs read numbers, gRPC and spans work."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from pipeline_lab import manifest_text
from support import Server

NUMBERS = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, NumpyRequestCodec
from mlserver.types import InferenceResponse


class Doubles(MLModel):
    # MLServer's own runtimes, such as scikit-learn's, read the whole request as one array.
    async def predict(self, payload):
        array = self.decode_request(payload, default_codec=NumpyRequestCodec)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("predict", array * 2)])
"""
TALK = """
import asyncio
from mlserver_chat import Runtime, SiblingSettings
from mlserver_chat.tensors import text_elements, text_output


class Talk(Runtime):
    settings_class = SiblingSettings

    async def handle_stream(self, request):
        for word in text_elements(request.inputs[0])[0].split():
            yield self.response([text_output("content", [word + " "])])
            await asyncio.sleep(0.2)
"""
CHAIN = """
steps: [{name: near}, {name: far, inputs: [near], tensorMap: {near.outputs.predict: x}}]
output: {steps: [far]}
"""
STUCK = "steps: [{name: near}, {name: later, inputs: [near.outputs.nothing]}]\noutput: {steps: [later]}"


class Collector(TraceServiceServicer):
    """Collects the spans that a server sends."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.has_step = threading.Event()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        for scope in (scope for each in request.resource_spans for scope in each.scope_spans):
            self.spans |= {span.name: span for span in scope.spans}
        if "step near" in self.spans:
            self.has_step.set()
        return otlp.ExportTraceServiceResponse()


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server], collector: tuple[Collector, str]) -> Server:
    """Three pipelines. A step of the first runs on another server, and its trace has no values."""
    numbers: dict[str, object] = {"implementation": "numbers_of_test.Doubles"}
    away = mlserver({"far": numbers}, files={"far/numbers_of_test.py": NUMBERS})
    extra = {"chain": {"models": {"far": away.url}, "trace_values": False}, "stuck": {}, "talks": {}}
    models: dict[str, dict[str, object]] = {"near": numbers, "later": numbers, "talk": {"implementation": "talk.Talk"}}
    models |= {
        name: {
            "implementation": "mlserver_pipeline.Pipeline",
            "parameters": {"extra": {"manifest": "p.yaml"} | settings},
        }
        for name, settings in extra.items()
    }
    files = {f"{name}/numbers_of_test.py": NUMBERS for name in ("near", "later")} | {"talk/talk.py": TALK}
    specs = {"chain": CHAIN, "stuck": STUCK, "talks": "steps: [{name: talk}]\noutput: {steps: [talk]}"}
    files |= {f"{name}/p.yaml": manifest_text(spec, name) for name, spec in specs.items()}
    return mlserver(models, files=files, env={"MLSERVER_TRACING_SERVER": collector[1]})


def ask(server: Server, pipeline: str, *data: float, **headers: str) -> httpx2.Response:
    tensor = {"name": "x", "shape": [len(data), 1], "datatype": "FP64", "data": data}
    body = {"inputs": [tensor]}
    return httpx2.post(f"{server.url}/v2/pipelines/{pipeline}/infer", json=body, headers=headers, timeout=20)


def test_remote_steps_and_array_models_work_as_steps(server: Server) -> None:
    (predicted,) = ask(server, "chain", 1.5, 2).json()["outputs"]
    assert predicted == {
        "data": [6, 8],
        "name": "predict",
        "shape": [2, 1],
        "datatype": "FP64",
        "parameters": {"content_type": "np"},
    }


def test_trace_without_values_names_tensors_only(server: Server) -> None:
    answer = ask(server, "chain", 48213, **{"x-pipeline-trace": "1"}).json()["outputs"][-1]
    near, far = map(json.loads, answer["data"])
    assert (near["arrived"], near["left"]) == ({"chain.inputs": [["x"]]}, [["predict"]])
    assert far["arrived"] == {"near.outputs": [["x"]]} and "48213" not in "".join(answer["data"])


def over_grpc(pipeline: str, datatype: str, **contents: Any) -> pb.ModelInferRequest:
    data = pb.InferTensorContents(**contents)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", shape=[1, 1], datatype=datatype, contents=data)
    return pb.ModelInferRequest(model_name=pipeline, inputs=[tensor])


def test_trace_works_over_grpc(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        answer = infer(over_grpc("chain", "FP64", fp64_contents=[1]), metadata=[("x-pipeline-trace", "1")], timeout=20)
    (trace,) = [each for each in answer.outputs if each.name == "trace"]
    assert [json.loads(row)["step"] for row in trace.contents.bytes_contents] == ["near", "far"]


def test_stall_over_grpc_is_unknown_with_the_same_text(server: Server) -> None:
    answer = ask(server, "stuck", 1)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel, pytest.raises(grpc.RpcError) as refused:
        GRPCInferenceServiceStub(channel).ModelInfer(over_grpc("stuck", "FP64", fp64_contents=[1]), timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNKNOWN  # type: ignore[attr-defined]
    assert answer.status_code == 504 and "step 'later' waits for near.outputs.nothing" in answer.text
    assert answer.text in refused.value.details()  # type: ignore[attr-defined]


def test_grpc_stream_sends_chunks_first_and_the_answer_last(server: Server) -> None:
    request = over_grpc("talks", "BYTES", bytes_contents=[b"one two"])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request]), timeout=20)
        parts = [(part.parameters["step"].string_param, part.outputs[0].contents.bytes_contents[0]) for part in stream]
    assert parts == [("talk", b"one "), ("talk", b"two "), ("", b"one two ")]


def test_step_spans_go_to_the_servers_collector(server: Server, collector: tuple[Collector, str]) -> None:
    ask(server, "chain", 48213)
    assert collector[0].has_step.wait(20), "MLServer sends its spans every five seconds"
    spans = collector[0].spans
    step = spans["step near"]
    assert step.parent_span_id, "it is below the request's"
    assert {each.key for each in step.attributes} == {"pipeline.step", "pipeline.tensors.in", "pipeline.tensors.out"}
    assert "48213" not in str(step)
