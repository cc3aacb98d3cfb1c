"""The scorer that asks an LLM for the log-probabilities of the routes."""

from collections.abc import Sequence

from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from mlserver_chat import BoundModel, InvalidInput, Message, UpstreamFailed, encode_messages, request_on_behalf
from mlserver_chat.tensors import as_input, float_elements, text_elements, text_input

from .decision import softmax
from .prompt import classification_messages
from .settings import RouteSettings


class LogprobScorer:
    """Asks an LLM through V2 how probable each route's name is as the answer to the classification prompt.

    The LLM generates no text, so it can't answer with an unknown route. It may be any model that takes chat tensors and
    the tensor `choices`, and answers `choices` and `logprobs`, such as `mlserver_llm_local.runtime.Local`.

    Args:
        llm: the model to call.
        routes: the routes to choose from.
    """

    def __init__(self, llm: BoundModel, routes: Sequence[RouteSettings]):
        self._llm = llm
        self._routes = routes

    async def score(
        self, messages: Sequence[Message], labels: Sequence[str], *, request: InferenceRequest | None = None
    ) -> list[float]:
        """Return one probability for each label, in the order of `labels`.

        Raises:
            UpstreamFailed: the LLM refused the prompt, or didn't answer one number for each label.
        """
        prompt = classification_messages(messages, self._routes)
        inputs = [*map(as_input, encode_messages(prompt)), text_input("choices", labels)]
        try:
            response = await self._llm.infer(request_on_behalf(request, inputs))
            return softmax(self._logprobs(response, labels))
        except InvalidInput as error:
            # The caller sent none of the refused input, so the error is not the caller's.
            raise UpstreamFailed(f"model '{self._llm.name}' can't score routes: {error}") from error

    def _logprobs(self, response: InferenceResponse, labels: Sequence[str]) -> list[float]:
        choices = text_elements(self._output(response, "choices"))
        logprobs = float_elements(self._output(response, "logprobs"))
        if sorted(choices) != sorted(labels) or len(logprobs) != len(choices):
            raise UpstreamFailed(
                f"model '{self._llm.name}' answered {len(choices)} 'choices' and {len(logprobs)} 'logprobs'; "
                f"expected one of each for the {len(labels)} routes"
            )
        scored = dict(zip(choices, logprobs, strict=True))
        return [scored[label] for label in labels]

    def _output(self, response: InferenceResponse, name: str) -> ResponseOutput:
        found = next((output for output in response.outputs if output.name == name), None)
        if found is None:
            raise UpstreamFailed(f"model '{self._llm.name}' answered without tensor '{name}'; can it score choices?")
        return found

    async def aclose(self) -> None:
        """Close the connections to the LLM."""
        await self._llm.aclose()
