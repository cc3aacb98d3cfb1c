"""The request path of every LLM runtime: read the conversation, render the prompt, call the backend, respond."""

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
    """Settings that all LLM steps share."""

    prompt: PromptSource | None = None
    """Prompt file, relative to `model-settings.json`; or the prompt itself; or a list of versions. Default: the
    conversation is sent to the model unchanged."""
    prompt_options: PromptOptions = PromptOptions()
    """Version, arms and reloading of the prompt."""
    prompt_utils: PromptUtils | None = None
    """A prompt in the form of Seldon's LLM Module."""
    llm_parameters: Options = {}
    """Generation options of this model, under OpenAI's names. Options of a prompt and of a request take precedence."""
    allowed_options: list[str] | None = None
    """Options that requests may set, in place of the default list: sampling, length, stop, seed, log-probabilities,
    response format and tools."""
    allow_overrides: list[str] = []
    """Further options that requests may set, e.g. `user` or `service_tier`."""
    limits: GenerationLimits = GenerationLimits()
    """Limits on the cost of one request."""

    @model_validator(mode="after")
    def _options_it_has(self) -> "PromptSettings":
        """Refuse the operator's wrong options while loading; otherwise every request would fail."""
        try:
            self.check_invocation({})
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return self

    default_options: ClassVar[frozenset[str]] = DEFAULT_ALLOWED
    """Options that requests may set if `allowed_options` is not given."""

    def request_options(self) -> RequestOptions:
        """Return the reader of the options of requests."""
        allowed = self.default_options if self.allowed_options is None else self.allowed_options
        return RequestOptions(frozenset((*allowed, *self.allow_overrides)), self.limits)

    def catalog(self, folder: Path) -> PromptCatalog | None:
        """Read the versions of the prompt, with `folder` as the base folder of files.

        Returns:
            None if the settings have no prompt.

        Raises:
            SettingsError: the prompt is wrong.
        """
        return PromptCatalog.of_settings(
            self.prompt, self.prompt_utils, self.prompt_options, folder, self.check_invocation
        )

    def check_invocation(self, config: Mapping[str, Any]) -> None:
        """Check the `invocation_config` of a prompt, as far as these settings tell which options the model has.

        Raises:
            InvalidInput: the model lacks an option, or its value is wrong.
        """


@dataclass
class Call:
    """A request that is being answered."""

    tensors: Tensors
    messages: list[Message]
    options: dict[str, Any]
    prompt: Prompt | None
    handed_on: list[ResponseOutput]
    started: float
    elsewhere: float = 0.0
    """Seconds spent in the backend and in the reader of a stream."""

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Count the time of the block as the backend's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.elsewhere += time.perf_counter() - began

    @property
    def overhead_ms(self) -> str:
        """Milliseconds spent so far, without the backend's time."""
        return f"{(time.perf_counter() - self.started - self.elsewhere) * 1000:.3f}"


class ChatStep:
    """Answers the requests of an LLM runtime. Adds the tensors of the prompt to the runtime's metadata.

    Args:
        runtime: the model that receives the requests.
        backend: generates the answers. The step closes it.
        settings: options, and the list of those that requests may set.
        prompts: the versions of the prompt. None: the conversation is sent unchanged.
        llm: name of the LLM, which is part of a prompt's hash.
        defaults: the model's own generation options. `settings.llm_parameters` take precedence.
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
        """Answer a request in one piece.

        Returns:
            The tensors `role`, `content`, `type`, `output_all`, and `tool_calls` if the model called tools. If the
            request has the tensor `choices`: `choices` and `logprobs`, the log-probability of each choice as the
            whole answer.

        Raises:
            InvalidInput: the request is wrong, or it has `choices` and the backend can't score.
            CallerLeft: the caller hung up.
        """
        call = await self._prepare(request)
        if "choices" in call.tensors:
            return await self._choose(request, call)
        with call.waiting():
            completion = await unless_left(self._complete(call.messages, call.options, request=request))
        return self._respond(call, _outputs(completion), completion.model, completion.finish_reason)

    async def stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Answer a request piece by piece. Raises like `run`.

        Yields:
            Responses whose `content` is the next part of the answer. The last one carries the `finish_reason`. Scores
            of `choices` come in one response.
        """
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
            raise InvalidInput("the request has the tensor 'choices', but this model can't score choices")
        with call.waiting():
            logprobs = await unless_left(self._score(call.messages, choices, request=request))
        return self._respond(call, [text_output("choices", choices), float_output("logprobs", logprobs)])

    async def aclose(self) -> None:
        """Close the backend."""
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
        # Jinja renders in another process, so wait in a thread. Plain replacement is faster than starting a thread.
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
