"""`core2_addressing: false` makes the path the only address, over REST and gRPC."""

import json
from collections.abc import Callable

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from pipeline_lab import manifest_text
from support import Server, text

STEP = """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse

class Named(MLModel):
    async def predict(self, payload):
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("who", [self.name])])
"""


def pipeline(name: str, core2_addressing: bool) -> dict[str, object]:
    extra = {"manifest": f"{name}.yaml", "core2_addressing": core2_addressing}
    return {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": extra}}


@pytest.fixture(scope="module", params=[True, False], ids=["on", "off"])
def server(request: pytest.FixtureRequest, mlserver: Callable[..., Server]) -> tuple[Server, bool]:
    models = {"open": {"implementation": "named.Named"}, "secret": {"implementation": "named.Named"}}
    # One pipeline that switches it off is enough.
    pipelines = {"first": pipeline("first", True), "second": pipeline("second", request.param)}
    files = {f"{name}/named.py": STEP for name in models}
    files["first/first.yaml"] = manifest_text("steps: [{name: open}]\noutput: {steps: [open]}", "first")
    files["second/second.yaml"] = manifest_text("steps: [{name: secret}]\noutput: {steps: [secret]}", "second")
    return mlserver({**models, **pipelines}, files=files), request.param


def who(response: httpx2.Response) -> str:
    return response.json()["outputs"][0]["data"][0]


@pytest.mark.parametrize("resource", ["secret", "second.pipeline"])
def test_the_header_decides_over_rest_only_where_it_may(server: tuple[Server, bool], resource: str) -> None:
    running, is_on = server
    response = running.infer("open", [text("x", "1")], headers={"Seldon-Model": resource})
    assert who(response) == ("secret" if is_on else "open")


@pytest.mark.parametrize("resource", ["secret", "second.pipeline"])
def test_the_metadata_decides_over_grpc_only_where_it_may(server: tuple[Server, bool], resource: str) -> None:
    running, is_on = server
    request = pb.ModelInferRequest(model_name="open")
    request.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"1")
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=[("seldon-model", resource)])
    assert answer.outputs[0].contents.bytes_contents[0] == (b"secret" if is_on else b"open")


def test_pipelines_keep_their_own_path(server: tuple[Server, bool]) -> None:
    running, _ = server
    body = json.dumps({"inputs": [text("x", "1")]})
    response = httpx2.post(f"{running.url}/v2/pipelines/second/infer", content=body, headers={"Seldon-Model": "open"})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["models/open", "pipelines/first"])
def test_two_resources_in_one_request_are_refused(server: tuple[Server, bool], path: str) -> None:
    running, _ = server
    headers = [("seldon-model", "open"), ("seldon-model", "secret"), ("content-type", "application/json")]
    response = httpx2.post(f"{running.url}/v2/{path}/infer", content=b'{"inputs": []}', headers=headers)
    assert response.status_code == (400 if path.startswith("pipelines") else 422)
    assert "header 'seldon-model' came twice with different values" in response.text
