"""Turns messages into tokens with the model's own chat template."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError

from mlserver_chat import InvalidInput, Message, SettingsError
from mlserver_chat.stores import SYSTEM_ROLES

from .control_tokens import ControlTokens, Marks

_REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)
"""Exceptions that a chat template raises for a conversation that it doesn't accept."""
_ROLE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_USUAL_ROLES = ("system", "developer", "user", "assistant", "tool")


class ChatFormat:
    """A tokenizer with its chat template, and the tokens that end a turn.

    Args:
        tokenizer: the model's tokenizer.
        end_tokens: the ids of the model's generation config that end an answer. Default: the tokenizer's.

    Raises:
        SettingsError: the tokenizer has no chat template, or no token ends a turn.
    """

    def __init__(self, tokenizer: Any, end_tokens: int | Sequence[int] | None):
        self._tokenizer = tokenizer
        self._control = ControlTokens(tokenizer)
        ends = tokenizer.eos_token_id if end_tokens is None else end_tokens
        self.end_tokens: list[int] = [ends] if isinstance(ends, int) else list(ends or [])
        if not tokenizer.chat_template:
            raise SettingsError("the model's tokenizer has no chat template; expected a chat model")
        if not self.end_tokens:
            raise SettingsError("the model has no token that ends an answer; expected 'eos_token_id'")
        self.pad_token: int = self.end_tokens[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._endings = "\0".join(tokenizer.convert_ids_to_tokens([*self.end_tokens, self.pad_token]))

    def prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        """Return the tokens of a conversation up to the place where the answer begins.

        Raises:
            InvalidInput: the template has no place for a message or for tools.
        """
        if tools and "tools" not in self._template(tools):
            raise InvalidInput("option 'tools' is not supported by this model: its chat template has no place for them")
        return self._encode(messages, tools, add_generation_prompt=True)

    def answer(self, messages: Sequence[Message], prompt: Sequence[int], text: str) -> list[int]:
        """Return the tokens of `text` as the whole answer after `prompt`, including the one that ends the turn."""
        whole = self._encode([*messages, Message.of_text("assistant", text)], [], add_generation_prompt=False)
        if whole[: len(prompt)] == list(prompt):
            tokens = whole[len(prompt) :]
        else:  # the template renders a past answer differently from a new one
            marks = Marks(self._control)
            tokens = self._control.encode(marks.put(text), marks)
        end = next((index for index, token in enumerate(tokens) if token in self.end_tokens), None)
        return [*tokens, self.end_tokens[0]] if end is None else tokens[: end + 1]

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of an answer's tokens."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _template(self, tools: Sequence[dict[str, Any]] = ()) -> str:
        return self._tokenizer.get_chat_template(tools=list(tools) or None)

    def _encode(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> list[int]:
        """Return the tokens of `messages`. If the template refuses them, try again with roles that alternate."""
        for attempt in (messages, _alternating(messages)):
            with suppress(*_REFUSALS):
                marks = Marks(self._control)
                chat: str = self._tokenizer.apply_chat_template(
                    [self._marked(record, marks) for record in self._records(attempt)],
                    tools=marks.put(list(tools)) or None,
                    add_generation_prompt=add_generation_prompt,
                    tokenize=False,
                )
                return self._control.encode(chat, marks)
        raise InvalidInput(
            "the model's chat template refuses this conversation; it may not know a role or may expect another order"
        )

    @staticmethod
    def _marked(record: dict[str, Any], marks: Marks) -> dict[str, Any]:
        return {key: value if key == "role" else marks.put(value) for key, value in record.items()}

    def _records(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the messages as chat templates expect them.

        A part that isn't text is refused in the newest message and left out of earlier ones. A memory may have stored
        a refused message, which must not make every later turn fail.
        """
        *earlier, newest = messages
        return [self._record(message) for message in (*map(_text_only, earlier), newest)]

    def _record(self, message: Message) -> dict[str, Any]:
        """Return a message with one text and with the arguments of tool calls as objects."""
        if not _ROLE.fullmatch(message.role):
            raise InvalidInput("a message's role has characters that no chat template uses; expected e.g. 'user'")
        if message.role not in _USUAL_ROLES and message.role in self._endings:
            raise InvalidInput("a message's role is part of the token that ends a turn; expected e.g. 'user'")
        other = next((part.type for part in message.parts if part.type != "text"), None)
        if other is not None:
            raise InvalidInput(
                "a message has a part that is not text, which this model can't read; expected type 'text'"
            )
        is_developer = message.role == "developer" and "developer" not in self._template()
        record: dict[str, Any] = message.to_openai() | {
            "role": "system" if is_developer else message.role,
            "content": message.text,
        }
        for call in record.get("tool_calls", []):
            if isinstance(call.get("function"), dict):
                call["function"]["arguments"] = _object(call["function"].get("arguments"))
        return record


def without_oldest(messages: Sequence[Message], turns: int) -> list[Message]:
    """Return the conversation without its `turns` oldest turns. System messages stay.

    Args:
        messages: the conversation.
        turns: less than `count_turns(messages)`.
    """
    start = _turn_starts(messages)[turns]
    return [each for index, each in enumerate(messages) if index >= start or each.role in SYSTEM_ROLES]


def count_turns(messages: Sequence[Message]) -> int:
    """Count the turns of a conversation. Each begins with a message of the user, or with the first message."""
    return len(_turn_starts(messages))


def _turn_starts(messages: Sequence[Message]) -> list[int]:
    return [index for index, message in enumerate(messages) if not index or message.role == "user"]


def _alternating(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with user and assistant taking turns, as strict templates demand.

    An unanswered turn leaves two messages of the user in a row, which are joined. An answer at the beginning of the
    window is left out.
    """
    kept: list[Message] = []
    for message in messages:
        last = kept[-1] if kept else None
        if message.role == "assistant" and (last is None or last.role in SYSTEM_ROLES):
            continue
        if last is not None and message.role == last.role and message.role in ("user", "assistant"):
            kept[-1] = replace(last, parts=last.parts + message.parts, tool_calls=last.tool_calls + message.tool_calls)
        else:
            kept.append(message)
    return kept


def _text_only(message: Message) -> Message:
    return replace(message, parts=tuple(part for part in message.parts if part.type == "text"))


def _object(arguments: Any) -> Any:
    try:
        return json.loads(arguments)
    except (TypeError, ValueError):
        return arguments
