"""The memory runtime: append the messages that came, answer with the window."""

import logging

from mlserver import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from mlserver_chat import (
    MemoryStore,
    Message,
    NotReachable,
    Runtime,
    SettingsError,
    append_key,
    decode_messages,
    encode_messages,
    memory_id_of,
)
from mlserver_chat.base import text_metadata
from mlserver_chat.tensors import passed_through, read_tensors, text_output

from .opening import open_store
from .settings import MemorySettings
from .window import shape_window

logger = logging.getLogger(__name__)

_PROVENANCE = ("prompt", "prompt_version", "prompt_hash", "model")
"""Parameters of an LLM step's response, which Core 2 hands to the step after it."""


class ConversationalMemory(Runtime[MemorySettings]):
    """Keeps conversations: `memory_id` alone reads, `memory_id` with a message appends and reads."""

    settings_class = MemorySettings
    input_tensors = text_metadata("memory_id", "role", "content", "type", "tool_calls", "tool_call_id")
    output_tensors = text_metadata("memory_id", "history", "role", "content", "type")
    _store: MemoryStore

    def __init__(self, settings: ModelSettings):
        super().__init__(settings)
        _refuse_mixing(settings)

    async def load(self) -> bool:
        """Open the store; one that is down is answered for with 503 until it is back."""
        self._store = open_store(self.config)
        try:
            await self._store.open()
        except NotReachable as error:
            logger.warning("model '%s' starts without its store: %s", self.name, error)
        return True

    async def unload(self) -> bool:
        """Close the store."""
        await self._store.aclose()
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """Append what came, if anything, and answer with the window."""
        config, tensors = self.config.config, read_tensors(request.inputs)
        memory_id = memory_id_of(tensors)
        messages = decode_messages({name: tensors[name] for name in config.tensor_names if name in tensors})
        if messages:
            key = append_key(memory_id, request, self.name, messages)
            window = await self._store.append(key, messages, config.window_size, _provenance(request))
        else:
            window = await self._store.window(memory_id, config.window_size)
        shown = shape_window(window, config.window_size, config.pin_system)
        passed = [output for output in passed_through(tensors) if output.name != "memory_id"]
        outputs = [
            text_output("memory_id", [memory_id]),
            text_output("history", [message.record for message in shown]),
            *self._echo(messages),
            *passed,
        ]
        return self.response(outputs)

    def _echo(self, messages: list[Message]) -> list[ResponseOutput]:
        if not messages:
            return []
        return [output for output in encode_messages(messages) if output.name in self.config.config.output_tensors]


def _provenance(request: InferenceRequest) -> dict[str, str]:
    values = {name: getattr(request.parameters, name, None) for name in _PROVENANCE}
    return {name: value for name, value in values.items() if isinstance(value, str) and value}


def _refuse_mixing(settings: ModelSettings) -> None:
    """What would answer one conversation with another, or with an old window, is a load error."""
    if settings.cache_enabled:
        raise SettingsError(f"model '{settings.name}': 'cache_enabled' would answer with an old window; switch it off")
    if settings.max_batch_size > 1:
        raise SettingsError(
            f"model '{settings.name}': 'max_batch_size' {settings.max_batch_size} would mix conversations; expected 0"
        )
