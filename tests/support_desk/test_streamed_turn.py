"""A streamed turn between two real memories stores exactly the text that the caller received."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from pipeline_lab import manifest_text
from support import ROOT, Server, outputs, text

SLOW = """
import asyncio, os
from pathlib import Path
from mlserver_chat.testing import FakeBackend


class Slow(FakeBackend):
    async def stream(self, messages, params):
        try:
            async for chunk in super().stream(messages, params):
                yield chunk
                await asyncio.sleep(0.2)
        finally:
            Path(os.environ["STOPPED"]).write_text("yes")
"""
REPLY = "one two three four five six seven"
TURN = manifest_text(
    """
    steps:
    - name: remember-user
    - name: answer
      inputs: [remember-user.outputs.memory_id, remember-user.outputs.history]
    - name: remember-assistant
      inputs: [answer.outputs.memory_id, answer.outputs.role, answer.outputs.content, answer.outputs.type]
    output: {steps: [remember-assistant]}
    """,
    "turn",
)


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any]]:
    """The memories of the support desk around a model that generates five words per second."""
    tmp = tmp_path_factory.mktemp("turn")
    backend = {"backend": "slow.Slow", "config": {"model_settings": {"reply": REPLY}}}
    models: dict[str, dict[str, object]] = {
        name: json.loads((ROOT / f"models/{name}/model-settings.json").read_text(encoding="utf-8"))
        for name in ("remember-user", "remember-assistant")
    }
    for name, implementation, extra in (
        ("answer", "mlserver_llm_local.runtime.Local", backend),
        ("turn", "mlserver_pipeline.Pipeline", {"manifest": "turn.yaml"}),
    ):
        models[name] = {"implementation": implementation, "parameters": {"extra": extra}}
    files = {"answer/slow.py": SLOW, "turn/turn.yaml": TURN}
    yield mlserver(models, files=files, tmp=tmp, env={"STOPPED": str(tmp / "stopped")}), tmp / "stopped"


def said(memory_id: str) -> dict[str, Any]:
    return {"inputs": [text("memory_id", memory_id), text("role", "user"), text("content", "hi"), text("type", "text")]}


def events(response: httpx2.Response) -> Iterator[dict[str, Any]]:
    return (json.loads(line.removeprefix("data:")) for line in response.iter_lines() if line.startswith("data:"))


def stored(server: Server, memory_id: str) -> list[tuple[str, str, str]]:
    """Return role, text and finish reason of each message."""
    body = [text("memory_id", memory_id)]
    answer = outputs(server.infer("remember-user", body, parameters={"operation": "export"}))
    messages = [json.loads(str(each)) for each in answer["messages"]]
    return [
        (each["role"], each["content"][0]["value"], each.get("provenance", {}).get("finish_reason", ""))
        for each in messages
    ]


def test_the_reply_is_stored_once_when_the_stream_ends(server: tuple[Server, Any]) -> None:
    for _ in range(2):
        url, headers = f"{server[0].url}/v2/pipelines/turn/infer_stream", {"x-request-id": "whole"}
        with httpx2.stream("POST", url, json=said("whole"), headers=headers, timeout=20) as response:
            *chunks, last = events(response)
            # The reply is stored as soon as the stream has ended.
            assert stored(server[0], "whole") == [("user", "hi", ""), ("assistant", REPLY, "")]
        assert {each["parameters"]["step"] for each in chunks} == {"answer"} and len(chunks) >= 7
        history = next(each["data"] for each in last["outputs"] if each["name"] == "history")
        assert [json.loads(each)["role"] for each in history] == ["user", "assistant"]


def over_rest(server: Server, memory_id: str) -> str:
    """Return the step of the first chunk, then hang up."""
    url = f"{server.url}/v2/pipelines/turn/infer_stream"
    with httpx2.stream("POST", url, json=said(memory_id), timeout=20) as response:
        return next(events(response))["parameters"]["step"]


def over_grpc(server: Server, memory_id: str) -> str:
    """Do the same over gRPC."""
    inputs = [
        pb.ModelInferRequest.InferInputTensor(
            name=each["name"],
            shape=each["shape"],
            datatype="BYTES",
            contents=pb.InferTensorContents(bytes_contents=[value.encode() for value in each["data"]]),
        )
        for each in said(memory_id)["inputs"]
    ]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        request = pb.ModelInferRequest(model_name="turn", inputs=inputs)
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request]), timeout=20)
        step = next(stream).parameters["step"].string_param
        stream.cancel()
        return step


@pytest.mark.parametrize("leave", [over_rest, over_grpc])
def test_hanging_up_stops_the_model_and_stores_the_reply_as_cut(
    server: tuple[Server, Any], leave: Callable[[Server, str], str]
) -> None:
    server[1].unlink(missing_ok=True)
    memory_id = leave.__name__
    assert leave(server[0], memory_id) == "answer"
    deadline = time.monotonic() + 10
    while len(stored(server[0], memory_id)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    (_, (role, content, end)) = stored(server[0], memory_id)
    assert (role, end) == ("assistant", "cut")
    assert REPLY.startswith(content) and len(content) < len(REPLY) and server[1].exists()
