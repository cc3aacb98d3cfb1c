"""The prompt runtime, which fills a prompt and sends it to the LLM of another model."""

from collections.abc import AsyncIterator

from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import ChatStep, Runtime, bind_llm, settings_folder
from mlserver_chat.llm.steps import LLM_INPUTS, LLM_OUTPUTS

from .settings import PromptRuntimeSettings
from .v2_backend import V2Backend


class PromptRuntime(Runtime[PromptRuntimeSettings]):
    """Binds a prompt to an LLM, so that many prompts share one deployed LLM.

    Inputs: the tensors of the prompt's placeholders, and `history`, chat tensors, or both if the prompt uses the
    conversation.
    Outputs: the LLM's answer as `role`, `content`, `type`, `output_all`, and `tool_calls` if it called tools.
    """

    settings_class = PromptRuntimeSettings
    input_tensors = LLM_INPUTS
    output_tensors = LLM_OUTPUTS

    async def load(self) -> bool:
        """Read the prompt, and wait for the LLM."""
        prompts = self.config.catalog(settings_folder(self.settings))
        llm = await bind_llm(self.config, self.settings, self.registry, self.config.limits.max_response_bytes)
        self._step = ChatStep(self, V2Backend(llm), self.config, prompts, llm.name)
        self.resources.push_async_callback(self._step.aclose)
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """Answer in one piece."""
        return await self._step.run(request)

    def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Answer piece by piece."""
        return self._step.stream(request)
