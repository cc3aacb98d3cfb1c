"""The seams: small protocols behind which a backend, a store or a scorer may be swapped.

Each has a test double that ships: `FakeBackend`, `FakeScorer` and `FakeModelClient` in `mlserver_chat.testing`,
`InMemoryStore` in `mlserver_memory`. All raise only the tree in `errors.py`. The fourth seam, `MemoryStore`, is in
`stores.py` with its types.

A method of a `ChatBackend`, `ChoiceBackend` or `Scorer` may also take the keyword `request`. It gets the
`InferenceRequest` that is being answered: `async def complete(self, messages, params, *, request=None)`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mlserver.types import InferenceRequest, InferenceResponse

from .messages.types import Completion, CompletionChunk, Message

Params = Mapping[str, Any]
"""Generation options under OpenAI's names (`max_tokens`, `temperature`, `tools`, …). A backend ignores none silently:
what it can't do is `InvalidInput`."""


class ChatBackend(Protocol):
    """Turns a conversation into an answer."""

    async def complete(self, messages: Sequence[Message], params: Params) -> Completion:
        """The whole answer."""
        ...

    def stream(self, messages: Sequence[Message], params: Params) -> AsyncIterator[CompletionChunk]:
        """The answer as it comes. Closing the iterator stops the work behind it."""
        ...

    async def aclose(self) -> None:
        """Give back connections, threads and memory. Called once."""
        ...


@runtime_checkable
class ChoiceBackend(Protocol):
    """What a `ChatBackend` may do besides: say how likely it would give each of some answers."""

    async def score(self, messages: Sequence[Message], choices: Sequence[str]) -> list[float]:
        """The log-probability (natural logarithm, ≤ 0) of each choice as the whole answer, in the given order."""
        ...


class Scorer(Protocol):
    """Turns a conversation into probabilities over labels."""

    async def score(self, messages: Sequence[Message], labels: Sequence[str]) -> list[float]:
        """One probability a label, in the given order, summing to 1."""
        ...

    async def aclose(self) -> None:
        """Give back what the scorer holds. Called once."""
        ...


class ModelClient(Protocol):
    """Calls another V2 model: in this process, or on a server."""

    async def infer(self, model: str, request: InferenceRequest) -> InferenceResponse:
        """The model's response. `request.parameters.headers` become the headers of the call."""
        ...

    def stream(self, model: str, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The model's streamed responses. Closing the iterator ends the call."""
        ...

    async def aclose(self) -> None:
        """Give back connections. Called once."""
        ...
