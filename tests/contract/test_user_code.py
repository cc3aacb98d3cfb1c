"""A backend, a scorer and a step as users wrote them for the first release, unchanged."""

import json
from collections.abc import Callable

import pytest

from support import Server, outputs, text

BACKEND = """
from mlserver_chat import Completion, CompletionChunk, InvalidInput

class Shout:
    def __init__(self, suffix="!"):
        self.suffix = suffix

    async def complete(self, messages, params):
        if params.get("temperature") == 2:
            raise InvalidInput("too hot")
        message = {"role": "assistant", "content": messages[-1].text.upper() + self.suffix}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return Completion({"id": "1", "object": "chat.completion", "created": 0, "model": "shout", "choices": choices})

    async def stream(self, messages, params):
        for piece in (messages[-1].text.upper(), self.suffix):
            choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]
            envelope = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "shout"}
            yield CompletionChunk({**envelope, "choices": choices})

    async def aclose(self):
        pass
"""
SCORER = """
class ByLength:
    def __init__(self, limit=10):
        self.limit = limit

    async def score(self, messages, labels):
        first = 0.9 if len(messages[-1].text) > self.limit else 0.1
        return [first, 1 - first]

    async def aclose(self):
        pass
"""
STEP = """
from mlserver import MLModel
from mlserver.types import InferenceResponse
from mlserver_chat import InvalidInput, Runtime, Settings
from mlserver_chat.tensors import passed_through, read_tensors, required_text, single_text, text_elements, text_output

class Reverse(MLModel):
    async def predict(self, payload):
        tensors = read_tensors(payload.inputs)
        words = required_text(tensors, "words")
        if "" in words:
            raise InvalidInput("tensor 'words' has an empty element; expected a word")
        outputs = [text_output("words", [word[::-1] for word in words]), *passed_through(tensors)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server]) -> Server:
    local = {"backend": "shout.Shout", "config": {"model_settings": {"suffix": "!!"}}}
    routes = [{"name": "long"}, {"name": "short"}]
    classifier = {"routes": routes, "scorer": "length.ByLength", "scorer_settings": {"limit": 5}}
    models = {
        "shout": {"implementation": "mlserver_llm_local.runtime.Local", "parameters": {"extra": local}},
        "length": {"implementation": "mlserver_classifier.Classifier", "parameters": {"extra": classifier}},
        "reverse": {"implementation": "step.Reverse"},
    }
    return mlserver(models, files={"shout/shout.py": BACKEND, "length/length.py": SCORER, "reverse/step.py": STEP})


def test_a_users_backend_answers(server: Server) -> None:
    answer = outputs(server.infer("shout", [text("role", "user"), text("content", "hi")]))
    assert answer["content"] == ["HI!!"]
    assert json.loads(str(answer["output_all"][0]))["model"] == "shout"


def test_a_users_backend_refuses(server: Server) -> None:
    inputs = [text("role", "user"), text("content", "hi"), text("llm_parameters", '{"temperature": 2}')]
    response = server.infer("shout", inputs)
    assert (response.status_code, response.json()) == (422, {"error": "too hot"})


def test_a_users_scorer_routes(server: Server) -> None:
    assert outputs(server.infer("length", [text("role", "user"), text("content", "a long text")]))["label"] == ["long"]
    assert outputs(server.infer("length", [text("role", "user"), text("content", "hi")]))["label"] == ["short"]


def test_a_users_step_answers_and_refuses(server: Server) -> None:
    answer = outputs(server.infer("reverse", [text("words", "ab", "cd"), text("memory_id", "m")]))
    assert answer == {"words": ["ba", "dc"], "memory_id": ["m"]}
    response = server.infer("reverse", [text("words", "ab", "")])
    assert response.status_code == 422
