"""The local runtime answers conversations with a model in the server's own process."""

from collections.abc import AsyncIterator

from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import ChatStep, Runtime, settings_folder
from mlserver_chat.llm.steps import LLM_INPUTS, LLM_OUTPUTS
from mlserver_chat.requests.identity import base_name

from .backends import build_backend
from .settings import LocalSettings


class Local(Runtime[LocalSettings]):
    """Runs the model `config.model_settings.model` in this process.

    Reads `history`, the chat tensors or both, and the tensors of the prompt's placeholders. Answers with `role`,
    `content`, `type` and `output_all`. A request with `choices` gets `choices` and `logprobs` instead.
    """

    settings_class = LocalSettings
    input_tensors = LLM_INPUTS
    output_tensors = LLM_OUTPUTS

    async def load(self) -> bool:
        """Read the prompt and load the weights without blocking the event loop."""
        folder, name = settings_folder(self.settings), base_name(self.name)
        prompts = self.config.catalog(folder)
        backend = await build_backend(self.config, folder, name)
        self._step = ChatStep(self, backend, self.config, prompts, name, self.config.defaults)
        self.resources.push_async_callback(self._step.aclose)
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """Return the whole answer, or the scores of the choices."""
        return await self._step.run(request)

    def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Stream the answer. Scores come in one piece."""
        return self._step.stream(request)
