"""What every LLM runtime does with a request: read the conversation, render the prompt, ask the backend, answer."""

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from .base import Runtime, text_metadata
from .codec import decode_history, decode_messages, read_conversation
from .errors import InvalidInput
from .messages import Completion, CompletionChunk, Message
from .options import merge_options, request_options
from .prompts import Prompt, PromptCatalog, PromptOptions, PromptUtils
from .prompts.catalog import PromptSource, render_prompt
from .seams import ChatBackend, ChoiceBackend
from .settings import Settings
from .streams import closing
from .tensors import (
    Tensors,
    dumps,
    float_output,
    optional_text,
    passed_through,
    read_tensors,
    required_text,
    text_output,
)

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
    llm_parameters: dict[str, Any] = {}
    """Generation options of this model, under OpenAI's names; a prompt and a request win over them."""
    allow_overrides: list[str] = []
    """Options that requests may set although they are denied by default (`model`, `user`, …)."""

    def catalog(self, folder: Path) -> PromptCatalog | None:
        """The prompt's versions, read from `folder`; None without a prompt."""
        source = self.prompt
        if source is None and self.prompt_utils is not None:
            source = self.prompt_utils.prompt(folder)
        return None if source is None else PromptCatalog(source, self.prompt_options, folder)


@dataclass
class Call:
    """One request on its way to the backend."""

    tensors: Tensors
    messages: list[Message]
    options: dict[str, Any]
    prompt: Prompt | None
    started: float = field(default_factory=time.perf_counter)
    backend_seconds: float = 0.0


class ChatStep:
    """The request path of an LLM runtime.

    Args:
        runtime: the model it answers for.
        backend: what answers.
        settings: prompt, options and denials.
        llm: name of the LLM, part of a prompt's identity.
        folder: where prompt files are.
        defaults: the model's own generation options, below `settings.llm_parameters`.
    """

    def __init__(
        self,
        runtime: Runtime[Any],
        backend: ChatBackend,
        settings: PromptSettings,
        llm: str,
        folder: Path,
        defaults: Mapping[str, Any] | None = None,
    ):
        self._runtime = runtime
        self._backend = backend
        self._llm = llm
        self._catalog = settings.catalog(folder)
        self._defaults = merge_options(defaults or {}, settings.llm_parameters)
        self._allowed: Collection[str] = settings.allow_overrides

    async def run(self, request: InferenceRequest) -> InferenceResponse:
        """The whole answer, as `role`, `content`, `type`, `tool_calls` if any, and `output_all`."""
        call = self._prepare(request)
        began = time.perf_counter()
        completion = await self._backend.complete(call.messages, call.options)
        call.backend_seconds = time.perf_counter() - began
        return self._respond(call, completion.model, completion.finish_reason, self._outputs(call, completion))

    async def stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The answer piece by piece: each response adds its `content`, and the last carries the `finish_reason`."""
        call = self._prepare(request)
        finish_reason = model = ""
        async with closing(self._backend.stream(call.messages, call.options)) as chunks:
            began = time.perf_counter()
            async for chunk in chunks:
                call.backend_seconds += time.perf_counter() - began
                finish_reason = chunk.finish_reason or finish_reason
                model = chunk.model or model
                yield self._respond(call, model, finish_reason, self._chunk_outputs(call, chunk))
                began = time.perf_counter()

    async def choose(self, request: InferenceRequest) -> InferenceResponse:
        """Score the `choices` instead of generating: log-probability of each as the whole answer.

        Raises:
            InvalidInput: the backend can't score.
        """
        if not isinstance(self._backend, ChoiceBackend):
            raise InvalidInput("tensor 'choices' came, but this model can't score choices")
        call = self._prepare(request)
        choices = required_text(call.tensors, "choices")
        began = time.perf_counter()
        logprobs = await self._backend.score(call.messages, choices)
        call.backend_seconds = time.perf_counter() - began
        outputs = [text_output("choices", choices), float_output("logprobs", logprobs), *passed_through(call.tensors)]
        return self._respond(call, self._llm, "", outputs)

    def _prepare(self, request: InferenceRequest) -> Call:
        tensors = read_tensors(request.inputs)
        requested = request_options(request, tensors, self._allowed)
        if self._catalog is None:
            conversation = read_conversation(tensors)
            return Call(tensors, conversation, merge_options(self._defaults, requested), None)
        prompt = self._catalog.select((optional_text(tensors, "memory_id") or [""])[0])
        conversation = conversation_if_any(tensors)
        messages = render_prompt(prompt, tensors, conversation)
        return Call(tensors, messages, merge_options(self._defaults, prompt.invocation_config, requested), prompt)

    def _outputs(self, call: Call, completion: Completion) -> list[ResponseOutput]:
        outputs = _message_outputs(completion.role, completion.text)
        if completion.tool_calls:
            outputs.append(text_output("tool_calls", completion.tool_calls))
        outputs.append(text_output("output_all", [dumps(dict(completion.data))]))
        return outputs + passed_through(call.tensors)

    def _chunk_outputs(self, call: Call, chunk: CompletionChunk) -> list[ResponseOutput]:
        outputs = _message_outputs("assistant", chunk.text)
        outputs.append(text_output("output_all", [dumps(dict(chunk.data))]))
        return outputs + passed_through(call.tensors)

    def _respond(
        self, call: Call, model: str, finish_reason: str, outputs: Sequence[ResponseOutput]
    ) -> InferenceResponse:
        parameters = {
            "model": model or self._llm,
            "finish_reason": finish_reason,
            "overhead_ms": f"{(time.perf_counter() - call.started - call.backend_seconds) * 1000:.3f}",
        }
        if call.prompt is not None:
            parameters["prompt"] = call.prompt.name
            parameters["prompt_version"] = call.prompt.version
            parameters["prompt_hash"] = call.prompt.hash(self._llm)
        return self._runtime.response(outputs, **{key: value for key, value in parameters.items() if value})


def _message_outputs(role: str, text: str) -> list[ResponseOutput]:
    return [text_output("role", [role]), text_output("content", [text]), text_output("type", ["text"])]


def conversation_if_any(tensors: Tensors) -> list[Message]:
    """The conversation when the request has one; a prompt may do without."""
    has_chat = "history" in tensors or "role" in tensors
    return read_conversation(tensors) if has_chat and (decode_history(tensors) or decode_messages(tensors)) else []
