"""The guard in front of MLServer, on a real server: bodies, slow clients, gRPC messages, clients that hang up."""

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from mlserver_chat.server.idle import close_idle_connections
from support import Server, text

LIMIT = 100_000
MEMORY = {
    "implementation": "mlserver_memory.ConversationalMemory",
    "parameters": {"extra": {"database": "filesys", "config": {"operations": ["append", "window"]}}},
}
SLOW = {"implementation": "slow.Slow"}
SLOW_MODEL = """
import asyncio
from mlserver_chat import ChatStep, Completion, PromptSettings, RateLimited, Runtime
from mlserver_chat.testing import FakeBackend

class Backend(FakeBackend):
    async def complete(self, messages, params):
        if messages[-1].text == "over":
            raise RateLimited("busy", retry_after=2.5)
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            print("CANCELLED", flush=True)
            raise

class Slow(Runtime[PromptSettings]):
    settings_class = PromptSettings

    async def load(self):
        self.step = ChatStep(self, Backend(), self.config, None, "slow")
        return True

    async def handle(self, request):
        return await self.step.run(request)
"""


@pytest.fixture(scope="module", params=[0, 1], ids=["in process", "one worker"])
def server(request: pytest.FixtureRequest, mlserver: Callable[..., Server]) -> Server:
    env = {
        "MLSERVER_LLM_MAX_REQUEST_BYTES": str(LIMIT),
        "MLSERVER_LLM_MAX_ELEMENTS": "1000",
        "MLSERVER_LLM_REQUEST_TIMEOUT": "1",
    }
    models = {"memory": MEMORY, "slow": SLOW}
    return mlserver(models, workers=request.param, env=env, files={"slow/slow.py": SLOW_MODEL})


@contextmanager
def connection(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connected:
        yield connected


def answer_of(connected: socket.socket) -> str:
    received = b""
    while piece := connected.recv(65536):
        received += piece
    return received.decode()


def chat(size: int) -> dict[str, object]:
    return {"inputs": [text("memory_id", "m"), text("role", "user"), text("content", "x" * size)]}


def test_a_body_over_the_limit_is_refused(server: Server) -> None:
    response = httpx2.post(f"{server.url}/v2/models/memory/infer", json=chat(LIMIT))
    assert response.status_code == 413
    assert response.json() == {"error": f"too large: the request is over the server's limit of {LIMIT} bytes"}


def test_a_body_without_a_length_is_counted(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b"x" * 1000 for _ in range(200))

    response = httpx2.post(f"{server.url}/v2/models/memory/infer", content=pieces())
    assert response.status_code == 413


def test_a_body_below_the_limit_is_read(server: Server) -> None:
    assert server.infer("memory", chat(1000)["inputs"]).status_code == 200


@pytest.mark.parametrize(
    "address", ["/v2/models/memory/infer", "/v2/models/memory/infer_stream", "/v2/repository/index"]
)
def test_gzip_is_counted_after_unpacking(server: Server, address: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < LIMIT
    response = httpx2.post(f"{server.url}/v2/{address}", content=bomb, headers={"content-encoding": "gzip"})
    assert response.status_code == 413


def test_gzip_beside_another_encoding_is_counted(server: Server) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    for encodings in ((b"identity", b"gzip"), (b"gzip", b"identity")):
        headers = [(b"content-encoding", each) for each in encodings]
        response = httpx2.post(f"{server.url}/v2/models/memory/infer", content=bomb, headers=headers)
        assert response.status_code == 413


def test_a_small_body_in_gzip_is_read(server: Server) -> None:
    body = gzip.compress(json.dumps(chat(50)).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    response = httpx2.post(f"{server.url}/v2/models/memory/infer", content=body, headers=headers)
    assert response.status_code == 200, response.text


def test_a_slow_body_ends(server: Server) -> None:
    with connection(server) as connected:
        connected.sendall(b"POST /v2/models/memory/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = answer_of(connected)
    assert answer.startswith("HTTP/1.1 408")
    assert "did not arrive within 1 s" in answer


REQUEST = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST /v2 HTTP/1.1\r\nHost: x\r\nX-A", REQUEST + REQUEST[:30]])
def test_a_connection_without_a_whole_request_ends(server: Server, sent: bytes) -> None:
    with connection(server) as connected:
        connected.sendall(sent)
        answered = answer_of(connected)
    assert answered.count("HTTP/1.1 200") == sent.count(REQUEST)


def test_a_connection_in_use_stays_open(server: Server) -> None:
    with connection(server) as connected:
        for _ in range(6):
            connected.sendall(REQUEST)
            assert connected.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.3)


@dataclass(eq=False)
class Connection:
    cycle: SimpleNamespace
    transport: SimpleNamespace


async def test_a_connection_that_waits_for_its_answer_stays_open() -> None:
    closed: list[str] = []
    connections = [
        Connection(
            SimpleNamespace(response_complete=name == "idle"), SimpleNamespace(close=partial(closed.append, name))
        )
        for name in ("idle", "busy")
    ]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await close_idle_connections(lambda: connections, 0.02)
    assert set(closed) == {"idle"}


def test_a_body_that_breaks_off_leaves_the_server_alone(server: Server) -> None:
    for _ in range(5):
        with connection(server) as connected:
            connected.sendall(b"POST /v2/models/memory/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert server.infer("memory", [text("memory_id", "m")]).status_code == 200
    assert "Traceback" not in server.log.read_text()


def test_elements_are_counted_over_rest(server: Server) -> None:
    inputs = [
        text("memory_id", "m"),
        *({"name": f"t{i}", "shape": [0], "datatype": "INT32", "data": []} for i in range(3)),
    ]
    assert server.infer("memory", inputs).status_code == 200
    declared = [text("memory_id", "m"), {"name": "t", "shape": [1001], "datatype": "INT32", "data": [1]}]
    held = [text("memory_id", "m"), {"name": "t", "shape": [1], "datatype": "INT32", "data": [[1] * 600, [1] * 600]}]
    for tensors in (declared, held):
        response = server.infer("memory", tensors)
        assert response.status_code == 422
        assert "too many elements; expected at most 1000" in response.json()["error"]


def grpc_error(server: Server, request: pb.ModelInferRequest, streamed: bool) -> grpc.RpcError:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ModelStreamInfer(iter([request]))) if streamed else stub.ModelInfer(request, timeout=10)
    return caught.value


@pytest.mark.parametrize("streamed", [False, True])
def test_a_grpc_message_over_the_limit_is_refused(server: Server, streamed: bool) -> None:
    request = pb.ModelInferRequest(model_name="memory")
    request.inputs.add(name="content", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"x" * LIMIT)
    assert grpc_error(server, request, streamed).code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("shape", [[1] * 20_000, [2**62] * 60, [1001]], ids=["dimensions", "sizes", "elements"])
@pytest.mark.parametrize("raw", [False, True])
def test_a_shape_over_grpc_is_bounded_before_it_is_believed(server: Server, shape: list[int], raw: bool) -> None:
    request = pb.ModelInferRequest(model_name="memory")
    request.inputs.add(name="t", datatype="INT32", shape=shape)
    if raw:
        request.raw_input_contents.append(b"\0" * 8)
    began = time.monotonic()
    assert grpc_error(server, request, False).code() == grpc.StatusCode.FAILED_PRECONDITION
    assert time.monotonic() - began < 5


WRONG: dict[str, dict[str, object]] = {
    "tensors": {"inputs": [{}] * 30_000},
    "outputs": {"inputs": [], "outputs": [{}] * 30_000},
    "shape": {"inputs": [{"shape": ["a"] * 20_000}]},
    "elements": {"inputs": [{"data": [1] * 40_000}]},
    "parameters": {"inputs": [], "parameters": {f"{i:05}": 1 for i in range(3000)}},
    "lists": {"inputs": [{"data": [[]] * 20_000}]},
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("address", ["models/memory/infer", "models/memory/infer_stream"])
def test_a_request_is_bounded_before_each_wrong_part_is_reported(
    server: Server, address: str, body: dict[str, object]
) -> None:
    response = httpx2.post(f"{server.url}/v2/{address}", json=body)
    assert response.status_code == 422 and "expected at most" in response.json()["error"]


def test_a_request_that_is_not_v2_is_not_repeated_in_the_answer(server: Server) -> None:
    response = httpx2.post(f"{server.url}/v2/models/memory/infer", json={"inputs": [{"data": ["secret"] * 900}]})
    assert response.status_code == 422 and "secret" not in response.text
    assert response.json()["detail"][0] == {
        "type": "missing",
        "loc": ["body", "inputs", 0, "name"],
        "msg": "Field required",
    }


def test_the_parameters_of_a_grpc_message_are_counted(server: Server) -> None:
    request = pb.ModelInferRequest(model_name="memory")
    for number in range(1001):
        request.parameters[str(number)].int64_param = 1
    error = grpc_error(server, request, False)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details().startswith("the request has 1001 parameters in one place")


def test_the_tensors_of_a_grpc_message_are_counted(server: Server) -> None:
    request = pb.ModelInferRequest(model_name="memory")
    request.inputs.extend([pb.ModelInferRequest.InferInputTensor()] * 1001)
    error = grpc_error(server, request, False)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "the request has 1001 inputs; expected at most 1000"


def message(datatype: str, shape: list[int], *raw: bytes) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="memory")
    request.inputs.add(name="t", datatype=datatype, shape=shape)
    request.raw_input_contents.extend(raw)
    return request


WRONG_PARAMETER = message("BYTES", [1])
WRONG_PARAMETER.parameters["content_type"].int64_param = 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "request_",
    [
        message("INT32", [1], b"\0"),
        message("INT32", [-1], b"\0" * 4),
        message("BYTES", [1], b"\xff" * 8),
        message("STRING", [1], b"a"),
        WRONG_PARAMETER,
    ],
    ids=["short", "negative", "length", "datatype", "parameter"],
)
def test_a_message_that_mlserver_cannot_convert_is_refused(
    server: Server, request_: pb.ModelInferRequest, streamed: bool
) -> None:
    error = grpc_error(server, request_, streamed)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details().startswith("the message can't be read")


def test_a_rest_caller_that_hangs_up_cancels_the_work(mlserver: Callable[..., Server]) -> None:
    server = mlserver({"slow": SLOW}, files={"slow/slow.py": SLOW_MODEL})
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{server.url}/v2/models/slow/infer",
            json={"inputs": [text("role", "user"), text("content", "hi")]},
            timeout=0.5,
        )
    for _ in range(50):
        if "CANCELLED" in server.log.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the work went on")


def test_a_busy_model_says_when_to_come_back(mlserver: Callable[..., Server]) -> None:
    server = mlserver({"slow": SLOW}, files={"slow/slow.py": SLOW_MODEL})
    response = server.infer("slow", [text("role", "user"), text("content", "over")])
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert response.json() == {"error": "rate limited: busy; try again after 2.5 s"}
