"""What every LLM runtime does with a request: read the conversation, render the prompt, ask the backend, answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from pydantic import model_validator

from ..errors import InvalidInput
from ..limits import GenerationLimits
from ..messages.codec import read_conversation
from ..messages.types import Completion, CompletionChunk, Message
from ..requests.caller import unless_left
from ..requests.identity import request_identity
from ..requests.passing import passing_request
from ..requests.streams import closing
from ..runtime import Runtime, text_metadata
from ..seams import ChatBackend, ChoiceBackend
from ..settings import Options, Settings
from ..tensors import (
    Tensors,
    dumps,
    float_output,
    optional_text,
    passed_through,
    read_tensors,
    required_text,
    text_output,
)
from .options import DEFAULT_ALLOWED, RequestOptions, merge_options, without_neutral
from .prompts import Prompt, PromptCatalog, PromptOptions, PromptSource, PromptUtils, fill

LLM_INPUTS = text_metadata(
    "memory_id", "history", "role", "content", "type", "llm_parameters", "tool_calls", "tool_call_id"
)
LLM_OUTPUTS = text_metadata("role", "content", "type", "output_all")


class PromptSettings(Settings):
    """The settings that every LLM step shares."""

    prompt: PromptSource | None = None
    """Prompt file, relative to `model-settings.json`; or the prompt itself; or a list of versions. Default: the
    conversation goes to the model as it is."""
    prompt_options: PromptOptions = PromptOptions()
    """Version, arms and reload of the prompt."""
    prompt_utils: PromptUtils | None = None
    """The LLM Module's own form of a prompt."""
    llm_parameters: Options = {}
    """Generation options of this model, under OpenAI's names; a prompt and a request win over them."""
    allowed_options: list[str] | None = None
    """Options that requests may set, in place of the default list: sampling, length, stop, seed, log-probabilities,
    response format and tools."""
    allow_overrides: list[str] = []
    """Options that requests may set besides, e.g. `user` or `service_tier`."""
    limits: GenerationLimits = GenerationLimits()
    """Limits on what one request may cost."""

    @model_validator(mode="after")
    def _options_it_has(self) -> "PromptSettings":
        """What the operator sets wrong would else be every caller's error."""
        try:
            self.check_invocation({})
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return self

    default_options: ClassVar[frozenset[str]] = DEFAULT_ALLOWED
    """Options that requests may set where `allowed_options` says nothing."""

    def request_options(self) -> RequestOptions:
        """The reader of the options of requests."""
        allowed = self.default_options if self.allowed_options is None else self.allowed_options
        return RequestOptions(frozenset((*allowed, *self.allow_overrides)), self.limits)

    def catalog(self, folder: Path) -> PromptCatalog | None:
        """The prompt's versions, read from `folder`; None without a prompt.

        Raises:
            SettingsError: anything wrong with it.
        """
        return PromptCatalog.of_settings(
            self.prompt, self.prompt_utils, self.prompt_options, folder, self.check_invocation
        )

    def check_invocation(self, config: Mapping[str, Any]) -> None:
        """Refuse a prompt's `invocation_config` that the model can't be called with, as far as these settings tell.

        Raises:
            InvalidInput: an option that it doesn't have, or a wrong value.
        """


@dataclass
class Call:
    """One request on its way to the backend."""

    tensors: Tensors
    messages: list[Message]
    options: dict[str, Any]
    prompt: Prompt | None
    handed_on: list[ResponseOutput]
    started: float
    elsewhere: float = 0.0
    """Seconds that the backend and the reader of a stream took."""

    @contextmanager
    def waiting(self) -> Generator[None]:
        """While the block runs, the backend works: its time isn't ours."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.elsewhere += time.perf_counter() - began

    @property
    def overhead_ms(self) -> str:
        """Milliseconds that we spent so far."""
        return f"{(time.perf_counter() - self.started - self.elsewhere) * 1000:.3f}"


class ChatStep:
    """The request path of an LLM runtime. The tensors of its prompt are added to the runtime's metadata.

    Args:
        runtime: the model it answers for.
        backend: what answers; closed with the step.
        settings: options and denials.
        prompts: the prompt's versions; None: the conversation goes to the LLM as it is.
        llm: name of the LLM, part of a prompt's identity.
        defaults: the model's own generation options, below `settings.llm_parameters`.
    """

    def __init__(
        self,
        runtime: Runtime[Any],
        backend: ChatBackend,
        settings: PromptSettings,
        prompts: PromptCatalog | None,
        llm: str,
        defaults: Mapping[str, Any] | None = None,
    ):
        self._runtime = runtime
        self._backend = backend
        self._complete = passing_request(backend.complete)
        self._score = passing_request(backend.score) if isinstance(backend, ChoiceBackend) else None
        self._llm = llm
        self._prompts = prompts
        self._defaults = merge_options(defaults or {}, settings.llm_parameters)
        self._request_options = settings.request_options()
        if prompts is not None:
            known = runtime.inputs or []
            names = {tensor.name for tensor in known}
            runtime.inputs = [*known, *text_metadata(*(field for field in prompts.fields if field not in names))]

    async def run(self, request: InferenceRequest) -> InferenceResponse:
        """The whole answer, as `role`, `content`, `type`, `tool_calls` if any, and `output_all`. With the tensor
        `choices`, their scores instead: `choices` and `logprobs`, the log-probability of each as the whole answer.

        Raises:
            InvalidInput: `choices` came, and the backend can't score.
        """
        call = await self._prepare(request)
        if "choices" in call.tensors:
            return await self._choose(request, call)
        with call.waiting():
            completion = await unless_left(self._complete(call.messages, call.options, request=request))
        return self._respond(call, _outputs(completion), completion.model, completion.finish_reason)

    async def stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The answer piece by piece: each response adds its `content`, and the last carries the `finish_reason`.
        Scores of `choices` come in one piece."""
        call = await self._prepare(request)
        if "choices" in call.tensors:
            yield await self._choose(request, call)
            return
        model = finish_reason = ""
        # Looked up here, because a user's own backend may have no `stream`.
        stream = passing_request(self._backend.stream)
        async with closing(stream(call.messages, call.options, request=request)) as chunks:
            while True:
                with call.waiting():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                model, finish_reason = chunk.model or model, chunk.finish_reason or finish_reason
                response = self._respond(call, _chunk_outputs(chunk), model, finish_reason)
                left = time.perf_counter()
                yield response
                call.elsewhere += time.perf_counter() - left

    async def _choose(self, request: InferenceRequest, call: Call) -> InferenceResponse:
        choices = required_text(call.tensors, "choices")
        if self._score is None:
            raise InvalidInput("tensor 'choices' came, but this model can't score choices")
        with call.waiting():
            logprobs = await unless_left(self._score(call.messages, choices, request=request))
        return self._respond(call, [text_output("choices", choices), float_output("logprobs", logprobs)])

    async def aclose(self) -> None:
        """Give back what the backend holds."""
        await self._backend.aclose()

    async def _prepare(self, request: InferenceRequest) -> Call:
        started = time.perf_counter()
        tensors = read_tensors(request.inputs)
        handed_on = passed_through(tensors)
        requested = self._request_options.read(request, tensors)
        if self._prompts is None:
            options = without_neutral(merge_options(self._defaults, requested))
            return Call(tensors, read_conversation(tensors), options, None, handed_on, started)
        conversation_id = (optional_text(tensors, "memory_id") or [""])[0] or request_identity(request)
        prompt = self._prompts.select(conversation_id)
        options = without_neutral(merge_options(self._defaults, prompt.invocation_config, requested))
        # Jinja waits for another process; plain replacement takes less time than a thread's start.
        messages = await asyncio.to_thread(fill, prompt, tensors) if prompt.type == "jinja" else fill(prompt, tensors)
        return Call(tensors, messages, options, prompt, handed_on, started)

    def _respond(
        self, call: Call, outputs: list[ResponseOutput], model: str = "", finish_reason: str = ""
    ) -> InferenceResponse:
        parameters = {"model": model or self._llm, "overhead_ms": call.overhead_ms}
        if finish_reason:
            parameters["finish_reason"] = finish_reason
        if call.prompt is not None:
            parameters |= {
                "prompt": call.prompt.name,
                "prompt_version": call.prompt.version,
                "prompt_hash": call.prompt.hash(self._llm),
            }
        return self._runtime.response([*outputs, *call.handed_on], **parameters)


def _outputs(completion: Completion) -> list[ResponseOutput]:
    calls = [text_output("tool_calls", completion.tool_calls)] if completion.tool_calls else []
    return [*_message_outputs(completion.role, completion.text), *calls, _output_all(completion.data)]


def _chunk_outputs(chunk: CompletionChunk) -> list[ResponseOutput]:
    return [*_message_outputs("assistant", chunk.text), _output_all(chunk.data)]


def _output_all(data: Mapping[str, Any]) -> ResponseOutput:
    return text_output("output_all", [dumps(dict(data))])


def _message_outputs(role: str, text: str) -> list[ResponseOutput]:
    return [text_output("role", [role]), text_output("content", [text]), text_output("type", ["text"])]
