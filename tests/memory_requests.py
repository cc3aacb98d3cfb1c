"""Requests to a loaded memory model, and what its answers say."""

import json
from typing import Any

from mlserver.types import InferenceRequest

from mlserver_memory import ConversationalMemory
from support import text


async def ask(
    model: ConversationalMemory, /, *inputs: dict[str, object], id: str = "", **parameters: Any
) -> dict[str, Any]:
    """The data of each output tensor."""
    request = InferenceRequest.model_validate({"id": id or None, "inputs": list(inputs), "parameters": parameters})
    response = await model.predict(request)
    return {
        output.name: [each.decode() if isinstance(each, bytes) else each for each in output.data.root]
        for output in response.outputs
    }


def said(*contents: str, role: str = "user", memory_id: str = "a") -> list[dict[str, object]]:
    return [text("memory_id", memory_id), text("role", *[role] * len(contents)), text("content", *contents)]


def contents(answer: dict[str, Any]) -> list[str]:
    return [part["value"] for message in answer["history"] for part in json.loads(message)["content"]]
