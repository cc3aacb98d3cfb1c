"""Chat messages and completions: our own small types over OpenAI's JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from ..errors import InvalidInput, UpstreamFailed
from ..tensors import Json, dumps, json_object

_SHORT = 2_000
"""Characters of a message that is kept parsed."""


@dataclass(frozen=True)
class Part:
    """One content part of a message. `value` is text; for a type other than `text`, usually a JSON object as text."""

    type: str
    value: str

    def to_openai(self) -> dict[str, Json]:
        """The part as OpenAI's chat API wants it, e.g. `{"type": "image_url", "image_url": {"url": …}}`."""
        if self.type == "text":
            return {"type": "text", "text": self.value}
        value: Json = self.value
        if self.value.lstrip().startswith(("{", "[")):
            try:
                value = json.loads(self.value)
            except ValueError:
                value = self.value
        if self.type == "image_url" and isinstance(value, str):
            value = {"url": value}
        return {"type": self.type, self.type: value}


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    `role` is any text the model knows (system, developer, user, assistant, tool). `parts` may be empty only beside
    `tool_calls`, which hold OpenAI's tool-call objects as JSON text, exactly as they came.
    """

    role: str
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[str, ...] = ()
    tool_call_id: str | None = None

    @staticmethod
    def of_text(role: str, text: str) -> "Message":
        """A message with one text part."""
        return Message(role, (Part("text", text),))

    @property
    def text(self) -> str:
        """All text parts, joined by newlines."""
        return "\n".join(part.value for part in self.parts if part.type == "text")

    def to_openai(self) -> dict[str, Json]:
        """The message as OpenAI's chat API wants it: plain text where it is one text part, else a list of parts."""
        message: dict[str, Json] = {"role": self.role}
        if len(self.parts) == 1 and self.parts[0].type == "text":
            message["content"] = self.parts[0].value
        elif self.parts:
            message["content"] = [part.to_openai() for part in self.parts]
        else:
            message["content"] = None
        if self.tool_calls:
            message["tool_calls"] = [json_object(call, "a tool call") for call in self.tool_calls]
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message

    def to_history(self) -> str:
        """One element of the `history` tensor."""
        return self._history

    # The key of an append and its store both want it.
    @cached_property
    def _history(self) -> str:
        record: dict[str, Json] = {
            "role": self.role,
            "content": [{"type": part.type, "value": part.value} for part in self.parts],
        }
        if self.tool_calls:
            record["tool_calls"] = [json.loads(call) for call in self.tool_calls]
        if self.tool_call_id:
            record["tool_call_id"] = self.tool_call_id
        return dumps(record)

    @staticmethod
    def from_history(text: str, where: str = "tensor 'history'") -> "Message":
        """The message of one element of the `history` tensor.

        Raises:
            InvalidInput: not such an object; `where` names the element.
        """
        if len(text) <= _SHORT:
            # What can't be parsed is parsed again, for the sentence that names the place.
            with suppress(InvalidInput):
                return _parsed_before(text)
        return _parsed(text, where)


def _parsed(text: str, where: str) -> Message:
    record = json_object(text, where)
    role, content = record.get("role"), record.get("content")
    if not isinstance(role, str) or not isinstance(content, list):
        raise InvalidInput(f"{where} needs a text 'role' and a list 'content'")
    parts: list[Part] = []
    for item in cast(list[Json], content):
        part = cast(dict[str, Json], item) if isinstance(item, dict) else {}
        kind, value = part.get("type"), part.get("value")
        if not isinstance(kind, str) or not isinstance(value, str):
            raise InvalidInput(f"{where} has a content part without text 'type' and 'value'")
        parts.append(Part(kind, value))
    calls = record.get("tool_calls", [])
    call_id = record.get("tool_call_id")
    if not isinstance(calls, list) or not isinstance(call_id, str | None):
        raise InvalidInput(f"{where} needs 'tool_calls' to be a list and 'tool_call_id' to be text")
    return Message(role, tuple(parts), tuple(dumps(call) for call in cast(list[Json], calls)), call_id)


# The steps of a turn read the same history one after the other, and the next turn's read most of it again.
@lru_cache(maxsize=2_000)
def _parsed_before(text: str) -> Message:
    return _parsed(text, "a message")


def last_user_text(messages: Sequence[Message]) -> str:
    """The text of the newest user message, or "" when there is none."""
    return next((message.text for message in reversed(messages) if message.role == "user"), "")


class _Delta(BaseModel, strict=True):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(BaseModel, strict=True):
    message: _Delta | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Answer(BaseModel, strict=True):
    """What is read of a completion or chunk; everything else in it is only handed on."""

    choices: list[_Choice] | None = None


def _checked(data: Json) -> Mapping[str, Json]:
    try:
        _Answer.model_validate(data)
    except ValidationError as error:
        raise UpstreamFailed("the answer is not a chat completion of OpenAI's form") from error
    return data


def _no_choice() -> list[dict[str, Any]]:
    return [{}]


def _none() -> list[Any]:
    return []


@dataclass(frozen=True)
class Completion:
    """A finished answer: OpenAI's `ChatCompletion` as JSON, and what the runtimes need of it."""

    data: Mapping[str, Json]

    @staticmethod
    def of_json(data: Json) -> "Completion":
        """The completion that another server sent.

        Raises:
            UpstreamFailed: it isn't one, or it has no choice.
        """
        completion = Completion(_checked(data))
        if not completion.data.get("choices"):
            raise UpstreamFailed("the answer has no choices")
        return completion

    @property
    def _choice(self) -> Mapping[str, Json]:
        return (self.data.get("choices") or _no_choice())[0]

    @property
    def _message(self) -> Mapping[str, Json]:
        return self._choice.get("message") or {}

    @property
    def role(self) -> str:
        """The role of the answer, normally `assistant`."""
        return self._message.get("role") or "assistant"

    @property
    def text(self) -> str:
        """The answer's text; a refusal counts as text; "" when the model only called tools."""
        return self._message.get("content") or self._message.get("refusal") or ""

    @property
    def tool_calls(self) -> tuple[str, ...]:
        """The tool calls of the answer, each as JSON text."""
        return tuple(dumps(call) for call in self._message.get("tool_calls") or ())

    @property
    def finish_reason(self) -> str:
        """`stop`, `length`, `tool_calls`, `content_filter`, or "" when the model did not say."""
        return self._choice.get("finish_reason") or ""

    @property
    def model(self) -> str:
        """The model that answered, in the words of its server."""
        return str(self.data.get("model") or "")


@dataclass(frozen=True)
class CompletionChunk:
    """A piece of a streamed answer: OpenAI's `ChatCompletionChunk` as JSON. The last one may carry usage only."""

    data: Mapping[str, Json]

    @staticmethod
    def of_json(data: Json) -> "CompletionChunk":
        """The chunk that another server sent.

        Raises:
            UpstreamFailed: it isn't one.
        """
        return CompletionChunk(_checked(data))

    @property
    def _choice(self) -> Mapping[str, Json]:
        return (self.data.get("choices") or _no_choice())[0]

    @property
    def _delta(self) -> Mapping[str, Json]:
        return self._choice.get("delta") or _no_choice()[0]

    @property
    def text(self) -> str:
        """The text this chunk adds, possibly ""."""
        return self._delta.get("content") or self._delta.get("refusal") or ""

    @property
    def tool_calls(self) -> tuple[Mapping[str, Json], ...]:
        """The tool-call deltas of this chunk."""
        return tuple(self._delta.get("tool_calls") or _none())

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, on the chunk that ends it; else ""."""
        return self._choice.get("finish_reason") or ""

    @property
    def model(self) -> str:
        """The model that answers, in the words of its server."""
        return str(self.data.get("model") or "")


@dataclass
class CompletionBuilder:
    """Adds streamed chunks up to the completion they spell."""

    text: str = ""
    finish_reason: str = ""
    model: str = ""
    identity: str = ""
    created: int = 0
    usage: Json = None
    _calls: dict[int, dict[str, Json]] = field(default_factory=dict[int, dict[str, Json]])

    def add(self, chunk: CompletionChunk) -> None:
        """Take one more chunk."""
        self.text += chunk.text
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.model = chunk.model or self.model
        self.identity = str(chunk.data.get("id") or self.identity)
        self.created = int(chunk.data.get("created") or self.created)
        self.usage = chunk.data.get("usage") or self.usage
        for delta in chunk.tool_calls:
            self._add_call(delta)

    def _add_call(self, delta: Mapping[str, Json]) -> None:
        empty: dict[str, Json] = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._calls.setdefault(int(delta.get("index") or 0), empty)
        call["id"] = delta.get("id") or call["id"]
        function: Mapping[str, Json] = delta.get("function") or _no_choice()[0]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    def completion(self) -> Completion:
        """The completion spelt so far."""
        message: dict[str, Json] = {"role": "assistant", "content": self.text or None}
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        data: dict[str, Json] = {
            "id": self.identity,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason or None}],
        }
        if self.usage is not None:
            data["usage"] = self.usage
        return Completion(data)


def usage_json(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """OpenAI's `usage` object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def as_messages(records: Iterable[Mapping[str, Json]]) -> list[Message]:
    """Messages of `{"role", "content"}` records with plain text, as tests and scripts write them."""
    return [Message.of_text(str(record["role"]), str(record["content"])) for record in records]
