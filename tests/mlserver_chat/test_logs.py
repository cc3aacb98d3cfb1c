"""Lines of the suite in MLServer's log, and tracebacks that it leaves out."""

import socket
import time
from collections.abc import Callable, Iterator

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from support import Server, text

CODE = """
import asyncio
from mlserver_chat import Runtime, Settings
from mlserver_chat.tensors import text_output

class Slow(Runtime):
    settings_class = Settings

    async def handle(self, request):
        raise RuntimeError("hunter2")

    async def handle_stream(self, request):
        for n in range(100):
            yield self.response([text_output("n", [str(n)])])
            await asyncio.sleep(0.05)
"""
PIPELINE = """
apiVersion: mlops.seldon.io/v1alpha1
kind: Pipeline
metadata: {name: chat}
spec:
  steps: [{name: slow}]
  output: {steps: [slow]}
"""
INPUTS = [text("x", "y")]


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server]) -> Iterator[Server]:
    extra = {"manifest": "chat.yaml"}
    models = {
        "slow": {"implementation": "slow.Slow"},
        "chat": {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": extra}},
    }
    return mlserver(models, files={"slow/slow.py": CODE, "chat/chat.yaml": PIPELINE})


def logged(server: Server, words: str) -> str:
    """The whole log, once it says `words`."""
    deadline = time.monotonic() + 20
    while words not in (log := server.log.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline, log
        time.sleep(0.1)
    return log


def test_a_disconnected_client_leaves_no_traceback(server: Server) -> None:
    for path in ("models/slow/infer", "models/slow/infer_stream", "pipelines/chat/infer"):
        with socket.create_connection(("127.0.0.1", server.http_port)) as upload:
            upload.sendall(f"POST /v2/{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{".encode())
    with httpx2.stream("POST", f"{server.url}/v2/models/slow/infer_stream", json={"inputs": INPUTS}) as answer:
        next(answer.iter_lines())
    message = pb.ModelInferRequest(model_name="slow")
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        next(GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([message]), timeout=30))
    time.sleep(1)
    assert "ClientDisconnect" not in server.log.read_text(encoding="utf-8")


def test_a_refusal_over_grpc_is_logged_without_a_traceback(server: Server) -> None:
    message = pb.ModelInferRequest(model_name="slow", id="two\nlines")
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel, pytest.raises(grpc.RpcError):
        GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=30)
    assert "InvalidInput" not in logged(server, "'id' can't be sent in a header"), "the last line of a traceback"


def test_a_bug_is_logged_as_one_line_with_its_place(server: Server) -> None:
    assert server.infer("slow", INPUTS).status_code == 500
    log = logged(server, "[mlserver.chat]")
    assert "model 'slow' failed with RuntimeError at " in log and "slow.py:" in log and "hunter2" not in log
