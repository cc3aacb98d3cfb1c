"""Types for chat messages and completions, over OpenAI's JSON."""

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
"""Most characters of a message whose parsed form is cached."""


@dataclass(frozen=True)
class Part:
    """A content part of a message. The `value` of a type other than `text` is usually the text of a JSON object."""

    type: str
    value: str

    def to_openai(self) -> dict[str, Json]:
        """Return the part in the form of OpenAI's chat API, e.g. `{"type": "image_url", "image_url": {"url": …}}`."""
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
    """A message of a conversation.

    Args:
        role: any role that the model knows, such as system, developer, user, assistant or tool.
        parts: the content; empty only beside tool calls.
        tool_calls: OpenAI's tool-call objects as JSON texts.
        tool_call_id: id of the tool call that this message answers.
    """

    role: str
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[str, ...] = ()
    tool_call_id: str | None = None

    @staticmethod
    def of_text(role: str, text: str) -> "Message":
        """Return a message with one text part."""
        return Message(role, (Part("text", text),))

    @property
    def text(self) -> str:
        """All text parts, joined by newlines."""
        return "\n".join(part.value for part in self.parts if part.type == "text")

    def to_openai(self) -> dict[str, Json]:
        """Return the message in the form of OpenAI's chat API. A single text part becomes plain text."""
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
        """Return the message as one element of the `history` tensor."""
        return self._history

    # Both the key of an append and its store use it.
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
        """Parse one element of the `history` tensor.

        Args:
            text: the element.
            where: names the element in error sentences.

        Raises:
            InvalidInput: the element is not a message.
        """
        if len(text) <= _SHORT:
            # If parsing fails, parse again below, for a sentence that names the place.
            with suppress(InvalidInput):
                return _cached(text)
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


# The steps of a turn read the same history one after another, and those of the next turn read most of it again.
@lru_cache(maxsize=2_000)
def _cached(text: str) -> Message:
    return _parsed(text, "a message")


def last_user_text(messages: Sequence[Message]) -> str:
    """Return the text of the newest user message, or "" if there is none."""
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
    """The fields of a completion or chunk that are read. All other fields are passed on unchecked."""

    choices: list[_Choice] | None = None


def _checked(data: Json) -> Mapping[str, Json]:
    try:
        _Answer.model_validate(data)
    except ValidationError as error:
        raise UpstreamFailed("the answer is not in the form of OpenAI's chat completions") from error
    return data


def _no_choice() -> list[dict[str, Any]]:
    return [{}]


def _none() -> list[Any]:
    return []


@dataclass(frozen=True)
class Completion:
    """A complete answer.

    Args:
        data: OpenAI's `ChatCompletion` as JSON.
    """

    data: Mapping[str, Json]

    @staticmethod
    def of_json(data: Json) -> "Completion":
        """Check a completion that another server sent.

        Raises:
            UpstreamFailed: `data` is not a completion, or it has no choices.
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
        """Role of the answer, usually `assistant`."""
        return self._message.get("role") or "assistant"

    @property
    def text(self) -> str:
        """Text of the answer, or of a refusal; "" if the model only called tools."""
        return self._message.get("content") or self._message.get("refusal") or ""

    @property
    def tool_calls(self) -> tuple[str, ...]:
        """Tool calls of the answer as JSON texts."""
        return tuple(dumps(call) for call in self._message.get("tool_calls") or ())

    @property
    def finish_reason(self) -> str:
        """`stop`, `length`, `tool_calls` or `content_filter`; "" if the model gave no reason."""
        return self._choice.get("finish_reason") or ""

    @property
    def model(self) -> str:
        """Name of the model that answered, as given by its server."""
        return str(self.data.get("model") or "")


@dataclass(frozen=True)
class CompletionChunk:
    """A piece of a streamed answer. The last one may have only usage.

    Args:
        data: OpenAI's `ChatCompletionChunk` as JSON.
    """

    data: Mapping[str, Json]

    @staticmethod
    def of_json(data: Json) -> "CompletionChunk":
        """Check a chunk that another server sent.

        Raises:
            UpstreamFailed: `data` is not a chunk.
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
        """Text that this chunk adds, possibly ""."""
        return self._delta.get("content") or self._delta.get("refusal") or ""

    @property
    def tool_calls(self) -> tuple[Mapping[str, Json], ...]:
        """Tool-call deltas of this chunk."""
        return tuple(self._delta.get("tool_calls") or _none())

    @property
    def finish_reason(self) -> str:
        """Reason for the end of the answer, in the chunk that ends it; otherwise ""."""
        return self._choice.get("finish_reason") or ""

    @property
    def model(self) -> str:
        """Name of the model that answers, as given by its server."""
        return str(self.data.get("model") or "")


@dataclass
class CompletionBuilder:
    """Builds a completion from streamed chunks."""

    text: str = ""
    finish_reason: str = ""
    model: str = ""
    completion_id: str = ""
    created: int = 0
    usage: Json = None
    _calls: dict[int, dict[str, Json]] = field(default_factory=dict[int, dict[str, Json]])

    def add(self, chunk: CompletionChunk) -> None:
        """Add a chunk."""
        self.text += chunk.text
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.model = chunk.model or self.model
        self.completion_id = str(chunk.data.get("id") or self.completion_id)
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
        """Return the completion of the chunks so far."""
        message: dict[str, Json] = {"role": "assistant", "content": self.text or None}
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        data: dict[str, Json] = {
            "id": self.completion_id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason or None}],
        }
        if self.usage is not None:
            data["usage"] = self.usage
        return Completion(data)


def usage_json(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Return OpenAI's `usage` object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def as_messages(records: Iterable[Mapping[str, Json]]) -> list[Message]:
    """Return messages for records `{"role", "content"}` with plain text, for tests and scripts."""
    return [Message.of_text(str(record["role"]), str(record["content"])) for record in records]
