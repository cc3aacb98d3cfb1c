"""Test doubles of backends, scorers and clients. They need no model and no network."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from mlserver.types import InferenceRequest, InferenceResponse

from ..errors import NotReachable
from ..messages.types import Completion, CompletionChunk, Message, usage_json
from ..seams import Params


def _words(text: str) -> int:
    return len(text.split())


class FakeBackend:
    """A `ChatBackend` with a fixed answer. It streams word by word, and its usage counts words.

    Args:
        reply: the answer, or a function of the messages that returns it.
        error: raised by every call, if given.

    Attributes:
        calls: messages and options of each call.
        closed: whether `aclose` was called.
    """

    def __init__(self, reply: str | Callable[[Sequence[Message]], str] = "ok", error: Exception | None = None):
        self.reply = reply
        self.error = error
        self.calls: list[tuple[list[Message], dict[str, Any]]] = []
        self.closed = False

    def _answer(self, messages: Sequence[Message], params: Params) -> str:
        self.calls.append((list(messages), dict(params)))
        if self.error is not None:
            raise self.error
        return self.reply if isinstance(self.reply, str) else self.reply(messages)

    async def complete(self, messages: Sequence[Message], params: Params) -> Completion:
        """Return the answer."""
        text = self._answer(messages, params)
        return Completion(
            {
                "id": f"fake-{len(self.calls)}",
                "object": "chat.completion",
                "created": 0,
                "model": "fake",
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
                ],
                "usage": usage_json(sum(_words(message.text) for message in messages), _words(text)),
            }
        )

    async def stream(self, messages: Sequence[Message], params: Params) -> AsyncIterator[CompletionChunk]:
        """Yield the answer in chunks of one word, then a chunk with the finish reason."""
        words = self._answer(messages, params).split(" ")
        pieces = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
        for index, piece in enumerate([*pieces, None]):
            delta: dict[str, Any] = {} if piece is None else {"content": piece}
            if index == 0:
                delta["role"] = "assistant"
            choice = {"index": 0, "delta": delta, "finish_reason": "stop" if piece is None else None}
            base = {"id": f"fake-{len(self.calls)}", "object": "chat.completion.chunk", "created": 0, "model": "fake"}
            yield CompletionChunk(base | {"choices": [choice]})

    async def score(self, messages: Sequence[Message], choices: Sequence[str]) -> list[float]:
        """Return -1 for the choice with which the answer begins, and -5 for the others."""
        answer = self._answer(messages, {})
        return [-1.0 if answer.startswith(choice) else -5.0 for choice in choices]

    async def aclose(self) -> None:
        """Set `closed`."""
        self.closed = True


class FakeScorer:
    """A `Scorer` that gives 0.9 to the label that occurs in the last message, or else to the first label."""

    async def score(self, messages: Sequence[Message], labels: Sequence[str]) -> list[float]:
        """Return one probability for each label."""
        text = messages[-1].text if messages else ""
        chosen = next((label for label in labels if label in text), labels[0])
        if len(labels) == 1:
            return [1.0]
        return [0.9 if label == chosen else 0.1 / (len(labels) - 1) for label in labels]

    async def aclose(self) -> None:
        """Nothing to give back."""


class FakeModelClient:
    """A `ModelClient` that calls functions.

    Args:
        models: the function that answers for each model. Calls to other models raise `NotReachable`.

    Attributes:
        calls: model and request of each call.
    """

    def __init__(self, models: dict[str, Callable[[InferenceRequest], InferenceResponse]]):
        self._models = models
        self.calls: list[tuple[str, InferenceRequest]] = []

    async def infer(self, model: str, request: InferenceRequest) -> InferenceResponse:
        """Return the response of the model's function."""
        self.calls.append((model, request))
        if model not in self._models:
            raise NotReachable(f"model '{model}' is not ready")
        return self._models[model](request)

    async def stream(self, model: str, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Yield the response of the model's function."""
        yield await self.infer(model, request)

    async def aclose(self) -> None:
        """Nothing to give back."""
