"""A caller that leaves, or a deadline that passes, cancels the LLM step. Nothing behind it is stored."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from pipeline_lab import manifest_text
from support import ROOT, Server, outputs, text

MODELS = """
import asyncio, os
from pathlib import Path
from mlserver import MLModel
from mlserver.types import InferenceResponse
from mlserver_chat.tensors import text_output
from mlserver_chat.testing import FakeBackend

heard = set()


def note(line):
    with open(os.environ["NOTES"], "a") as file:
        print(line, file=file)


class Slow(FakeBackend):
    # The first call with a text takes long.
    async def complete(self, messages, params):
        said = messages[-1].text
        if said not in heard:
            heard.add(said)
            note("began " + said)
            try:
                await asyncio.sleep(30)
            finally:
                note("stopped " + said)
        return await super().complete(messages, params)


class Audit(MLModel):
    async def predict(self, payload):
        await asyncio.sleep(1)
        note("audited")
        return InferenceResponse(model_name=self.name, outputs=[text_output("done", ["yes"])])
"""
TURN = """
steps:
- {name: remember-user}
- {name: audit}
- {name: answer, inputs: [NAME.inputs.memory_id, remember-user.outputs.history]}
- {name: remember-assistant, inputs: [NAME.inputs.memory_id, answer]}
output: {steps: [remember-assistant]}
"""


class Desk(NamedTuple):
    """A server with pipelines whose LLM runs in its process or on another server, and a file of notes by the models."""

    server: Server
    notes: Path

    def wait_for(self, note: str) -> None:
        deadline = time.monotonic() + 20
        while note not in self.lines() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert note in self.lines()

    def lines(self) -> list[str]:
        return self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []

    def stored(self, memory_id: str) -> list[tuple[str, str]]:
        body = [text("memory_id", memory_id)]
        answer = outputs(self.server.infer("remember-user", body, parameters={"operation": "export"}))
        messages = [json.loads(str(each)) for each in answer["messages"]]
        return [(each["role"], each["content"][0]["value"]) for each in messages]


@pytest.fixture(scope="module")
def desk(mlserver: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    tmp = tmp_path_factory.mktemp("leaving")
    env = {"NOTES": str(tmp / "notes")}
    backend = {"backend": "slow.Slow", "config": {"model_settings": {"reply": "at last"}}}
    llm: dict[str, Any] = {"implementation": "mlserver_llm_local.runtime.Local", "parameters": {"extra": backend}}
    away = mlserver({"answer": llm}, files={"answer/slow.py": MODELS}, env=env)
    models: dict[str, dict[str, object]] = {
        name: json.loads((ROOT / f"models/{name}/model-settings.json").read_text(encoding="utf-8"))
        for name in ("remember-user", "remember-assistant")
    }
    models |= {"answer": llm, "audit": {"implementation": "slow.Audit"}}
    uris = {"here": "", "by-rest": away.url, "by-grpc": f"grpc://127.0.0.1:{away.grpc_port}"}
    files = {f"{name}/slow.py": MODELS for name in ("answer", "audit")}
    for name, uri in uris.items():
        extra = {"manifest": "turn.yaml"} | ({"models": {"answer": uri}} if uri else {})
        models[name] = {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": extra}}
        files[f"{name}/turn.yaml"] = manifest_text(TURN.replace("NAME", name), name)
    return Desk(mlserver(models, files=files, env=env), tmp / "notes")


def turn(memory_id: str) -> list[dict[str, Any]]:
    return [text("memory_id", memory_id), text("role", "user"), text("content", memory_id), text("type", "text")]


def leave_rest(desk: Desk, pipeline: str, memory_id: str) -> None:
    url, headers = f"{desk.server.url}/v2/pipelines/{pipeline}/infer", {"x-request-id": memory_id}
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(url, json={"inputs": turn(memory_id)}, headers=headers, timeout=0.7)


def grpc_request(pipeline: str, memory_id: str) -> pb.ModelInferRequest:
    inputs = [
        pb.ModelInferRequest.InferInputTensor(
            name=each["name"],
            shape=each["shape"],
            datatype="BYTES",
            contents=pb.InferTensorContents(bytes_contents=[value.encode() for value in each["data"]]),
        )
        for each in turn(memory_id)
    ]
    return pb.ModelInferRequest(model_name=pipeline, inputs=inputs)


def leave_grpc(desk: Desk, pipeline: str, memory_id: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{desk.server.grpc_port}") as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        call = infer.future(grpc_request(pipeline, memory_id), metadata=[("x-request-id", memory_id)])
        desk.wait_for(f"began {memory_id}")
        call.cancel()


@pytest.mark.parametrize("pipeline", ["here", "by-rest", "by-grpc"])
@pytest.mark.parametrize("leave", [leave_rest, leave_grpc])
def test_unary_caller_leaving_cancels_the_llm_step_and_may_repeat_the_turn(
    desk: Desk, pipeline: str, leave: Callable[[Desk, str, str], None]
) -> None:
    memory_id = f"{pipeline}-{leave.__name__}"
    desk.notes.unlink(missing_ok=True)
    leave(desk, pipeline, memory_id)
    desk.wait_for(f"stopped {memory_id}")
    # A step that is no LLM finishes.
    desk.wait_for("audited")
    assert desk.stored(memory_id) == [("user", memory_id)]
    for _ in range(2):
        headers = {"x-request-id": memory_id}
        answer = desk.server.infer(pipeline, turn(memory_id), headers=headers)
        assert [json.loads(str(each))["role"] for each in outputs(answer)["history"]] == ["user", "assistant"]
    assert desk.stored(memory_id) == [("user", memory_id), ("assistant", "at last")]


@pytest.mark.parametrize("pipeline", ["here", "by-rest", "by-grpc"])
def test_request_deadline_ends_the_llm_step_and_answers_424_or_503(desk: Desk, pipeline: str) -> None:
    memory_id = f"{pipeline}-deadline"
    late = {"x-request-id": memory_id, "x-request-timeout-ms": "600"}
    answer = desk.server.infer(pipeline, turn(memory_id), headers=late)
    passed = "the request's deadline passed before the pipeline answered"
    assert (answer.status_code, answer.json()) == (424, {"error": f"upstream failed: {passed}"})
    desk.wait_for(f"stopped {memory_id}")
    assert desk.stored(memory_id) == [("user", memory_id)]
    url, body = f"{desk.server.url}/v2/pipelines/{pipeline}/infer", {"inputs": turn(f"{memory_id}-never")}
    for milliseconds, status in (("0", 503), ("soon", 400)):
        answer = httpx2.post(url, json=body, headers={"x-request-timeout-ms": milliseconds})
        assert answer.status_code == status, answer.text
    assert desk.stored(f"{memory_id}-never") == []


def test_request_deadline_works_over_grpc(desk: Desk) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{desk.server.grpc_port}") as channel, pytest.raises(grpc.RpcError) as late:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        infer(grpc_request("here", "grpc-deadline"), metadata=[("x-request-timeout-ms", "600")])
    assert late.value.code() is grpc.StatusCode.UNKNOWN  # type: ignore[attr-defined]
    assert "before the pipeline answered" in late.value.details()  # type: ignore[attr-defined]
    desk.wait_for("stopped grpc-deadline")
