"""The memory runtime: append the messages that came, answer with the window."""

import asyncio
import logging
from collections.abc import Sequence

from mlserver import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from mlserver_chat import (
    InternalError,
    InvalidInput,
    MemoryStore,
    Message,
    NotReachable,
    Runtime,
    SettingsError,
    Window,
    append_key,
    decode_messages,
    encode_messages,
    memory_id_of,
    settings_folder,
)
from mlserver_chat.requests.headers import declare_unique_header
from mlserver_chat.runtime import text_metadata
from mlserver_chat.tensors import Tensors, passed_through, read_tensors, text_output

from . import operations
from .budget import TokenBudget
from .metrics import watching_store
from .opening import open_store
from .requests import check_limits, namespace_of, operation_of, provenance_of, window_size_of
from .retention import Retention
from .settings import MemorySettings
from .window import shape_window

logger = logging.getLogger("mlserver.memory")


class ConversationalMemory(Runtime[MemorySettings]):
    """Keeps conversations: `memory_id` alone reads, `memory_id` with a message appends and reads."""

    settings_class = MemorySettings
    input_tensors = text_metadata("memory_id", "role", "content", "type", "tool_calls", "tool_call_id")
    output_tensors = text_metadata("memory_id", "history", "role", "content", "type")
    _store: MemoryStore
    _budget: TokenBudget | None

    def __init__(self, settings: ModelSettings):
        super().__init__(settings)
        _refuse_caching(settings)
        if self.config.config.namespace_header is not None:
            declare_unique_header(self.config.config.namespace_header)

    async def load(self) -> bool:
        """Open the store; one that is down is answered for with 503 until it is back."""
        self._budget = await asyncio.to_thread(TokenBudget.load, self.config.config, settings_folder(self.settings))
        self._store = open_store(self.config)
        self.resources.push_async_callback(self._store.aclose)
        try:
            with watching_store(self.name):
                await self._store.open()
        except (NotReachable, InternalError) as error:
            logger.warning("model '%s' starts without its store: %s", self.name, error)
        self.resources.push_async_callback(Retention(self._store, self.config.config).aclose)
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """Append what came, if anything, and answer with the window; or do the `operation` that the request names."""
        config, tensors = self.config.config, read_tensors(request.inputs)
        store = self._store.scope(namespace_of(request, config))
        chat = {name: tensors[name] for name in config.tensor_names if name in tensors}
        operation = operation_of(request, config, bool(chat))
        handed_on = passed_through(tensors)
        if operation == "stats":
            return self.response(await operations.stats(store))
        with watching_store(self.name):
            match operation:
                case "append":
                    outputs = await self._append(store, request, tensors, decode_messages(chat), handed_on)
                case "window":
                    outputs = await self._window(store, request, tensors, handed_on)
                case "delete":
                    outputs = await operations.delete(store, memory_id_of(tensors))
                case _:
                    outputs = await operations.export(store, memory_id_of(tensors), request)
        return self.response(outputs)

    async def _append(
        self,
        store: MemoryStore,
        request: InferenceRequest,
        tensors: Tensors,
        messages: list[Message],
        handed_on: Sequence[ResponseOutput],
    ) -> list[ResponseOutput]:
        if not messages:
            raise InvalidInput("tensor 'role' is missing; expected a message to append")
        check_limits(messages, self.config.config)
        memory_id, size = memory_id_of(tensors), window_size_of(request, self.config.config)
        key = append_key(memory_id, request, self.name, messages)
        window = await store.append(key, messages, size, provenance_of(request, messages))
        wanted = self.config.config.output_tensors
        echo = [each for each in encode_messages(messages) if each.name in wanted] if wanted else []
        return await self._answer(handed_on, window, size, echo)

    async def _window(
        self, store: MemoryStore, request: InferenceRequest, tensors: Tensors, handed_on: Sequence[ResponseOutput]
    ) -> list[ResponseOutput]:
        size = window_size_of(request, self.config.config)
        return await self._answer(handed_on, await store.window(memory_id_of(tensors), size), size, [])

    async def _answer(
        self, handed_on: Sequence[ResponseOutput], window: Window, size: int, echo: Sequence[ResponseOutput]
    ) -> list[ResponseOutput]:
        pin_system = self.config.config.pin_system
        if self._budget is None:
            shown = shape_window(window, size, pin_system)
        else:
            shown = await asyncio.to_thread(shape_window, window, size, pin_system, self._budget)
        memory_id, *passed = handed_on
        return [memory_id, text_output("history", [message.record for message in shown]), *echo, *passed]


def _refuse_caching(settings: ModelSettings) -> None:
    """The response cache would answer with an old window."""
    if settings.cache_enabled:
        raise SettingsError(f"model '{settings.name}': 'cache_enabled' would answer with an old window; switch it off")
