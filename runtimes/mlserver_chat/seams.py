"""Protocols for the parts that a user may replace: backends, scorers and model clients.

`mlserver_chat.testing` has a test double of each: `FakeBackend`, `FakeScorer` and `FakeModelClient`. All methods raise
only the errors of `errors.py`. The fourth protocol, `MemoryStore`, is in `stores.py`, and its double is `InMemoryStore`
in `mlserver_memory`.

A method of a `ChatBackend`, `ChoiceBackend` or `Scorer` may also take the keyword `request`. It then receives the
`InferenceRequest` that is being answered: `async def complete(self, messages, params, *, request=None)`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mlserver.types import InferenceRequest, InferenceResponse

from .messages.types import Completion, CompletionChunk, Message

Params = Mapping[str, Any]
"""Generation options under OpenAI's names (`max_tokens`, `temperature`, `tools`, …). A backend raises `InvalidInput`
for an option that it doesn't support."""


class ChatBackend(Protocol):
    """Answers conversations."""

    async def complete(self, messages: Sequence[Message], params: Params) -> Completion:
        """Return the whole answer."""
        ...

    def stream(self, messages: Sequence[Message], params: Params) -> AsyncIterator[CompletionChunk]:
        """Yield the answer piece by piece. Closing the iterator stops the generation."""
        ...

    async def aclose(self) -> None:
        """Release connections, threads and memory. Called once."""
        ...


@runtime_checkable
class ChoiceBackend(Protocol):
    """Optional part of a `ChatBackend`: rates given answers by their probability."""

    async def score(self, messages: Sequence[Message], choices: Sequence[str]) -> list[float]:
        """Return the natural log-probability of each choice as the whole answer, in the order of `choices`."""
        ...


class Scorer(Protocol):
    """Rates labels for a conversation."""

    async def score(self, messages: Sequence[Message], labels: Sequence[str]) -> list[float]:
        """Return one probability for each label, in the order of `labels`. They sum to 1."""
        ...

    async def aclose(self) -> None:
        """Release the scorer's resources. Called once."""
        ...


class ModelClient(Protocol):
    """Calls other V2 models, in this process or on a server."""

    async def infer(self, model: str, request: InferenceRequest) -> InferenceResponse:
        """Return the model's response. `request.parameters.headers` are sent as the headers of the call."""
        ...

    def stream(self, model: str, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Yield the model's responses as they arrive. Closing the iterator ends the call."""
        ...

    async def aclose(self) -> None:
        """Close connections. Called once."""
        ...
