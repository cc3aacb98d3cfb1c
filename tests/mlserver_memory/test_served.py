"""Memory in a real MLServer: a database that is down before and while it runs, and whose conversation it is."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from databases import postgres, sql_url
from memory_requests import said
from support import Server, free_ports, outputs, text

IMPLEMENTATION = "mlserver_memory.ConversationalMemory"
SENTENCE = "not reachable: the memory store can't be reached"


def over_grpc(
    server: Server,
    model: str,
    headers: dict[str, str] | None = None,
    parameters: dict[str, pb.InferParameter] | None = None,
    **tensors: str,
) -> list[str]:
    """The history that a gRPC client gets; none where the answer has none."""
    inputs = [
        pb.ModelInferRequest.InferInputTensor(
            name=name, datatype="BYTES", shape=[1], contents=pb.InferTensorContents(bytes_contents=[value.encode()])
        )
        for name, value in tensors.items()
    ]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        request = pb.ModelInferRequest(model_name=model, inputs=inputs, parameters=parameters)
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60, metadata=[*(headers or {}).items()])
    histories = [output.contents.bytes_contents for output in answer.outputs if output.name == "history"]
    return [element.decode() for history in histories for element in history]


@pytest.mark.parametrize("driver", ["pg8000", "psycopg"])
def test_a_database_that_is_down_is_503_until_it_is_back_and_nothing_is_lost(
    driver: str, mlserver: Callable[..., Server], tmp_path: Path
) -> None:
    url = sql_url(driver, f"outage_{driver}", tmp_path).replace("postgres@", "postgres:hunter2@")
    extra = {"database": "sql", "config": {"url": url}}
    models = {"memory": {"implementation": IMPLEMENTATION, "parameters": {"extra": extra}}}
    (port,) = free_ports(1)
    turns = iter(range(100))

    def is_reachable() -> float:
        page = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        (line,) = [each for each in page.splitlines() if each.startswith("mlserver_memory_store_reachable{")]
        return float(line.split()[-1])

    def is_down() -> None:
        response = server.infer("memory", said("lost"))
        assert (response.status_code, response.json()) == (503, {"error": SENTENCE})
        with pytest.raises(grpc.RpcError) as error:
            over_grpc(server, "memory", memory_id="a")
        assert error.value.details() == SENTENCE
        assert httpx2.get(f"{server.url}/v2/health/ready").is_success
        assert is_reachable() == 0

    def comes_back() -> None:
        turn = str(next(turns))
        deadline = time.monotonic() + 30
        while (response := server.infer("memory", said(turn), headers={"x-request-id": turn})).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        outputs(response)
        assert is_reachable() == 1

    postgres().stop()
    try:
        server = mlserver(models, env={"MLSERVER_METRICS_PORT": str(port)})
        is_down()
        postgres().start()
        comes_back()
        postgres().stop()
        is_down()
    finally:
        postgres().start()
    comes_back()
    history = [json.loads(message) for message in over_grpc(server, "memory", memory_id="a")]
    assert [message["content"][0]["value"] for message in history] == ["0", "1"]
    log = server.log.read_text(encoding="utf-8")
    assert log.count("can't be reached: ") == log.count("can be reached again") == 2
    assert "hunter2" not in log


def test_the_header_of_http_and_of_grpc_names_the_namespace_and_the_body_does_not(
    mlserver: Callable[..., Server],
) -> None:
    extra = {"database": "filesys", "config": {"namespace_header": "x-tenant"}}
    server = mlserver({"memory": {"implementation": IMPLEMENTATION, "parameters": {"extra": extra}}})
    outputs(server.infer("memory", said("of one"), headers={"X-Tenant": "one"}))
    assert len(over_grpc(server, "memory", {"x-tenant": "one"}, memory_id="a")) == 1
    assert over_grpc(server, "memory", {"x-tenant": "two"}, memory_id="a") == []
    claimed = {"parameters": {"headers": {"x-tenant": "one"}}}
    read = [text("memory_id", "a")]
    assert outputs(server.infer("memory", read, headers={"x-tenant": "two"}, **claimed))["history"] == []
    response = server.infer("memory", read, **claimed)
    assert (response.status_code, "'x-tenant' is missing" in response.text) == (422, True)


def test_parameters_of_grpc_choose_the_window_and_the_operation(mlserver: Callable[..., Server]) -> None:
    extra = {"database": "filesys", "config": {"path": "parameters"}}
    server = mlserver({"memory": {"implementation": IMPLEMENTATION, "parameters": {"extra": extra}}})
    outputs(server.infer("memory", said("1", "2", "3")))
    for size in (pb.InferParameter(int64_param=2), pb.InferParameter(string_param="2")):
        assert len(over_grpc(server, "memory", parameters={"window_size": size}, memory_id="a")) == 2
    with pytest.raises(grpc.RpcError, match="expected a whole number from 1"):
        over_grpc(server, "memory", parameters={"window_size": pb.InferParameter(int64_param=0)}, memory_id="a")
    over_grpc(server, "memory", parameters={"operation": pb.InferParameter(string_param="delete")}, memory_id="a")
    assert over_grpc(server, "memory", memory_id="a") == []
