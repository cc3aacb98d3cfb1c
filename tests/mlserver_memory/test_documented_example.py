"""The LLM Module's own example of conversational memory, over HTTP to a real `mlserver start`."""

from collections.abc import Callable
from uuid import uuid4

import httpx2
import pytest

from support import Server

CONVERSATION = [
    ("user", "Hey how are you?"),
    ("assistant", "I'm good, how are you?"),
    ("user", "I'm good too. Can I ask you a question?"),
    ("assistant", "Sure, what's your question?"),
    ("user", "What is the capital of France?"),
]
WINDOW = {"window_size": 50, "tensor_names": ["role", "content", "type"]}
MODELS = {
    "filesys-memory": {"database": "filesys", "config": WINDOW},
    "sql-memory": {"database": "sql", "config": {"url": "sqlite:///memory.db", "connection_options": {}, **WINDOW}},
}


@pytest.fixture(scope="module", params=[0, None], ids=["in the server", "in a worker process"])
def server(request: pytest.FixtureRequest, mlserver: Callable[..., Server]) -> Server:
    """One server without worker processes, one with MLServer's defaults and no settings.json."""
    models = {
        name: {"implementation": "mlserver_memory.ConversationalMemory", "parameters": {"extra": extra}}
        for name, extra in MODELS.items()
    }
    return mlserver(models, workers=request.param)


def send(server: Server, model: str, **tensors: list[str]) -> dict[str, object]:
    """The example's request: shape [1] whatever the number of elements, content_type on every tensor."""
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": data, "parameters": {"content_type": "str"}}
        for name, data in tensors.items()
    ]
    response = httpx2.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": inputs}, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def tensor(name: str, *data: str) -> dict[str, object]:
    return {
        "name": name,
        "shape": [len(data), 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "str"},
        "data": list(data),
    }


@pytest.mark.parametrize("model", MODELS)
def test_all_five_messages_come_back_exactly_as_documented(server: Server, model: str) -> None:
    memory_id = str(uuid4())
    for role, content in CONVERSATION:
        send(server, model, memory_id=[memory_id], role=[role], content=[content], type=["text"])
    response = send(server, model, memory_id=[memory_id])
    assert response.pop("id")
    assert response == {
        "model_name": model,
        "parameters": {},
        "outputs": [
            tensor("memory_id", memory_id),
            tensor(
                "history",
                '{"role": "user", "content": [{"type": "text", "value": "Hey how are you?"}]}',
                '{"role": "assistant", "content": [{"type": "text", "value": "I\'m good, how are you?"}]}',
                '{"role": "user", "content": [{"type": "text", "value": "I\'m good too. Can I ask you a question?"}]}',
                '{"role": "assistant", "content": [{"type": "text", "value": "Sure, what\'s your question?"}]}',
                '{"role": "user", "content": [{"type": "text", "value": "What is the capital of France?"}]}',
            ),
        ],
    }


@pytest.mark.parametrize("model", MODELS)
def test_two_contents_under_one_role_are_one_message(server: Server, model: str) -> None:
    memory_id = str(uuid4())
    response = send(
        server,
        model,
        memory_id=[memory_id],
        role=["user"],
        content=["This is the first input", "This is the second input"],
        type=["text", "text"],
    )
    assert response["outputs"] == [
        tensor("memory_id", memory_id),
        tensor(
            "history",
            '{"role": "user", "content": [{"type": "text", "value": "This is the first input"}, '
            '{"type": "text", "value": "This is the second input"}]}',
        ),
    ]
    assert response["parameters"] == {}
