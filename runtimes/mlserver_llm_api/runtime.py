"""The API runtime, which answers conversations with a model behind an OpenAI-compatible API."""

from collections.abc import AsyncIterator

from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import ChatStep, Runtime, settings_folder
from mlserver_chat.llm.steps import LLM_INPUTS, LLM_OUTPUTS

from .openai_backend import OpenAIBackend, build_client
from .settings import LLMSettings


class LLMRuntime(Runtime[LLMSettings]):
    """Answers with the model `config.model_id` of the API at `config.base_url`.

    Inputs: `history`, chat tensors, or both, and the tensors of the prompt's placeholders.
    Outputs: `role`, `content`, `type`, `output_all` (the API's answer), and `tool_calls` if the model called tools.
    """

    settings_class = LLMSettings
    input_tensors = LLM_INPUTS
    output_tensors = LLM_OUTPUTS

    async def load(self) -> bool:
        """Read the prompt and build the client. Doesn't call the API, which may be down and costs money."""
        config = self.config.config
        prompts = self.config.catalog(settings_folder(self.settings))
        client = build_client(config, self.config.limits.max_response_bytes)
        backend = OpenAIBackend(client, config.model, config.timeout, config.stream_timeout)
        self._step = ChatStep(self, backend, self.config, prompts, config.model, config.llm_parameters)
        self.resources.push_async_callback(self._step.aclose)
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """Answer in one piece."""
        return await self._step.run(request)

    def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Answer piece by piece."""
        return self._step.stream(request)
