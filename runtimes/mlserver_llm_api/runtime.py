"""The API runtime: a conversation in, the answer of a model behind an OpenAI-compatible API out."""

from collections.abc import AsyncIterator

from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import ChatStep, Runtime, settings_folder
from mlserver_chat.llm.steps import LLM_INPUTS, LLM_OUTPUTS

from .openai_backend import OpenAIBackend, build_client
from .settings import LLMSettings


class LLMRuntime(Runtime[LLMSettings]):
    """Asks the model `config.model_id` of `config.base_url`.

    In: `history`, chat tensors, or both, and the tensors of the prompt's placeholders.
    Out: `role`, `content`, `type`, `tool_calls` when the model called tools, and `output_all`, the API's own answer.
    """

    settings_class = LLMSettings
    input_tensors = LLM_INPUTS
    output_tensors = LLM_OUTPUTS

    async def load(self) -> bool:
        """Read the prompt and build the client. The API is not called: it may be down, and calls cost money."""
        config = self.config.config
        prompts = self.config.catalog(settings_folder(self.settings))
        client = build_client(config, self.config.limits.max_response_bytes)
        backend = OpenAIBackend(client, config.model, config.timeout, config.stream_timeout)
        self._step = ChatStep(self, backend, self.config, prompts, config.model, config.llm_parameters)
        self.resources.push_async_callback(self._step.aclose)
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """The whole answer."""
        return await self._step.run(request)

    def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The answer as it comes."""
        return self._step.stream(request)
