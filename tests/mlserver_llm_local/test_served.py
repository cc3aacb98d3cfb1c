"""The three LLM runtimes in a real MLServer, over REST and gRPC, with and without a worker process."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat.tensors import text_elements
from mlserver_chat.testing import OpenAIServer, Reply
from support import Server, outputs, text

KEY = "sk-test-planted-0123456789"
SECRET_TEXT = "my password is hunter2"
HELLO = [text("role", "user"), text("content", "hello"), text("type", "text")]
PROMPT = {
    "name": "ask",
    "version": "4",
    "template": [{"role": "placeholder", "content": "{history}"}, {"role": "user", "content": "Status of {issue}?"}],
    "invocation_config": {"max_tokens": 12, "temperature": 0},
}
BACKEND = """
from mlserver_chat import Completion


class Shout:
    def __init__(self, mark):
        self.mark = mark

    async def complete(self, messages, params):
        message = {"role": "assistant", "content": messages[-1].text.upper() + self.mark}
        return Completion({"choices": [{"message": message, "finish_reason": "stop"}]})

    async def aclose(self):
        pass
"""


def runtime(implementation: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {"implementation": implementation, "parameters": {"extra": extra}}


def local(model: Path) -> dict[str, Any]:
    settings = {"model": str(model), "device": "cpu", "max_tokens": 16}
    config = {"model_settings": settings}
    return runtime("mlserver_llm_local.runtime.Local", {"config": config, "llm_parameters": {"temperature": 0}})


def asking(**extra: Any) -> dict[str, Any]:
    return runtime("mlserver_prompt_utils.runtime.PromptRuntime", {"prompt": PROMPT, **extra})


@pytest.fixture(scope="module")
def api() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server], tiny_model: Path, api: OpenAIServer) -> Server:
    custom = {"backend": "my_backend.Shout", "config": {"model_settings": {"mark": "!"}}}
    config = {"model_id": "m", "base_url": api.base_url, "max_retries": 0, "timeout": 20}
    models = {
        "ask-api": asking(llm="api"),
        "ask-local": asking(llm="local"),
        "api": runtime("mlserver_llm_api.LLMRuntime", {"provider_id": "openai", "config": config}),
        "local": local(tiny_model),
        "local-too": local(tiny_model),
        "own": runtime("mlserver_llm_local.runtime.Local", custom),
    }
    env = {"MLSERVER_MODEL_OPENAI_API_KEY": KEY, "OPENAI_LOG": "debug"}
    return mlserver(models, env=env, files={"own/my_backend.py": BACKEND})


@pytest.fixture(scope="module")
def worker(mlserver: Callable[..., Server], tiny_model: Path, server: Server) -> Server:
    models = {
        "ask-local": asking(llm="local"),
        "ask-remote": asking(infer_uri=f"{server.url}/v2/models/local/infer"),
        "local": local(tiny_model),
    }
    return mlserver(models, workers=1)


def rest_stream(server: Server, model: str, inputs: list[Any]) -> Iterator[InferenceResponse]:
    url = f"{server.url}/v2/models/{model}/infer_stream"
    with httpx2.stream("POST", url, json={"inputs": inputs}, timeout=30) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data:"):
                yield InferenceResponse.model_validate_json(line.removeprefix("data:"))


def grpc_stream(server: Server, model: str, inputs: list[Any]) -> Iterator[InferenceResponse]:
    tensors = [tensor | {"data": [element.encode() for element in tensor["data"]]} for tensor in inputs]
    request = InferenceRequest.model_validate({"inputs": tensors})
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        message = ModelInferRequestConverter.from_types(request, model_name=model, model_version="")
        for response in GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([message]), timeout=30):
            yield ModelInferResponseConverter.to_types(response)


def values(response: InferenceResponse) -> dict[str, str]:
    return {output.name: "".join(text_elements(output)) for output in response.outputs}


ISSUE = [text("issue", "48213")]
STREAMED = [("local", HELLO), ("api", HELLO), ("ask-api", HELLO + ISSUE), ("ask-local", HELLO + ISSUE)]


@pytest.mark.parametrize("stream", [rest_stream, grpc_stream])
@pytest.mark.parametrize(("model", "inputs"), STREAMED)
def test_the_pieces_of_a_stream_add_up_to_the_whole_answer(server, model, inputs, stream):
    whole = outputs(server.infer(model, inputs))["content"][0]
    responses = list(stream(server, model, inputs))
    assert len(responses) > 2
    assert "".join(values(response)["content"] for response in responses) == whole
    last = responses[-1].parameters
    assert last.finish_reason in ("stop", "length") and float(last.overhead_ms) >= 0
    assert json.loads(values(responses[-1])["output_all"])["object"] == "chat.completion.chunk"


def test_a_prompt_runtime_calls_its_llm_and_names_the_prompt(server, api):
    api.reset()
    headers = {"x-request-id": "r-1", "x-team": "qa"}
    answer = server.infer("ask-api", HELLO + ISSUE, headers=headers)
    assert outputs(answer)["content"] == ["You said: Status of 48213?"]
    parameters = answer.json()["parameters"]
    assert (parameters["prompt"], parameters["prompt_version"], parameters["model"]) == ("ask", "4", "m")
    assert api.received[0].json == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}, {"role": "user", "content": "Status of 48213?"}],
        "max_tokens": 12,
        "temperature": 0,
    }


def test_choices_are_scored_over_http(server):
    found = outputs(server.infer("local", [*HELLO, text("choices", "status", "support")]))
    assert found["choices"] == ["status", "support"]
    assert all(logprob < 0 for logprob in found["logprobs"])


def test_a_custom_backend_answers(server):
    assert outputs(server.infer("own", HELLO))["content"] == ["HELLO!"]


@pytest.mark.parametrize("model", ["api", "ask-api"])
@pytest.mark.parametrize("stream", [rest_stream, grpc_stream])
def test_a_client_that_disconnects_ends_the_upstream_call(server, api, model, stream):
    api.reset()
    api.script(Reply(text="a b c d e f", pause=0.3))
    responses = stream(server, model, HELLO + ISSUE)
    next(responses)
    responses.close()
    deadline = time.monotonic() + 5
    while not api.received[0].hung_up:
        assert time.monotonic() < deadline, "the API is still being read"
        time.sleep(0.05)


@pytest.mark.parametrize("model", ["api", "ask-api"])
def test_a_rest_client_that_hangs_up_ends_the_call_that_costs(server, api, model):
    api.reset()
    api.script(Reply(delay=20))
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": HELLO + ISSUE}, timeout=1)
    deadline = time.monotonic() + 5
    while not api.received[0].hung_up:
        assert time.monotonic() < deadline, "the API is still being asked"
        time.sleep(0.05)


@pytest.mark.parametrize("stream", [rest_stream, grpc_stream])
def test_a_failed_stream_ends_with_error_and_status(server, api, stream):
    api.reset()
    api.script(Reply(status=429, headers={"retry-after": "7"}))
    (last,) = stream(server, "ask-api", HELLO + ISSUE)
    assert last.outputs == [] and last.parameters.status == 429
    assert last.parameters.error.startswith("rate limited: the API's rate limit is exceeded")
    assert last.parameters.error.endswith("try again after 7 s")


@pytest.mark.parametrize(
    ("model", "inputs", "sentence"),
    [
        ("local", [text("role", "user")], "tensor 'content' is missing; expected BYTES [n]"),
        (
            "local",
            [*HELLO, text("llm_parameters", '{"best_of": 3}')],
            "option 'best_of' of 'llm_parameters' may not be set",
        ),
        ("local", [text("role", "user"), text("content", "x" * 4000)], "the model's context holds 512"),
        (
            "api",
            [*HELLO, text("llm_parameters", '{"model": "x"}')],
            "option 'model' of 'llm_parameters' may not be set",
        ),
        ("ask-local", HELLO, "tensor 'issue' is missing; prompt 'ask' needs it for 'issue'"),
        ("ask-local", [text("history", "nope"), *ISSUE], "tensor 'history' element 0 is not JSON"),
    ],
)
def test_bad_input_answers_422_with_one_sentence(server, model, inputs, sentence):
    answer = server.infer(model, inputs)
    assert answer.status_code == 422 and sentence in answer.json()["error"]


def test_the_key_and_messages_are_in_no_log_and_no_answer(server, api):
    echo = {"message": f"bad key {KEY}: {SECRET_TEXT}", "code": KEY}
    secret = [text("role", "user"), text("content", SECRET_TEXT)]
    texts: list[str] = []
    for reply in (Reply(), Reply(status=401, error=echo), Reply(status=400, error=echo), Reply(body=KEY.encode())):
        api.reset()
        api.script(reply, reply)
        answer = server.infer("api", secret)
        assert api.received[0].headers["authorization"] == f"Bearer {KEY}"
        if answer.status_code != 200:
            texts += [answer.text, *(response.model_dump_json() for response in rest_stream(server, "api", secret))]
    texts.append(httpx2.get(f"{server.url}/v2/models/api").text)
    texts.append(server.log.read_text(encoding="utf-8"))
    assert "HTTP Request" in texts[-1] or "Sending HTTP" in texts[-1], "the client's debug log is on"
    for each in texts:
        assert KEY not in each and SECRET_TEXT not in each


def test_a_worker_finds_its_sibling_and_streams_in_one_piece(worker):
    whole = outputs(worker.infer("ask-local", HELLO + ISSUE))["content"][0]
    for stream in (rest_stream, grpc_stream):
        (only,) = stream(worker, "ask-local", HELLO + ISSUE)
        assert values(only)["content"] == whole
    assert outputs(worker.infer("local", [*HELLO, text("choices", "a", "b")]))["choices"] == ["a", "b"]


def test_infer_uri_of_core_2_selects_the_llm_of_another_server(worker, server):
    """The prompt's hash doesn't depend on how the LLM is reached."""
    remote, here = worker.infer("ask-remote", HELLO + ISSUE), server.infer("ask-local", HELLO + ISSUE)
    assert outputs(remote)["content"] == outputs(here)["content"]
    assert remote.json()["parameters"]["prompt_hash"] == here.json()["parameters"]["prompt_hash"]
