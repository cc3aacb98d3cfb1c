"""Encodes chat messages as tensors and decodes them, in the four forms of the LLM Module.

| case | `role` | `content`, `type` | `tool_calls` |
|---|---|---|---|
| one message, one part | `[1]` | plain text | one JSON object a call |
| one message, k parts | `[1]` | k elements, plain text | one JSON object a call |
| n messages | `[n]` | n elements; JSON lists if every `type` is one, else plain | "" or a JSON list of JSON texts |
| tool calls | | `content` may be missing beside `tool_calls` | `tool_call_id` `[n]`, "" or the id |

A single message is always plain text, even if it looks like JSON. A missing `type` means text.
"""

from collections.abc import Sequence
from typing import cast

from mlserver.types import ResponseOutput

from ..errors import InvalidInput
from ..tensors import Json, Tensors, dumps, json_object, loads, optional_text, required_text, text_output
from .types import Message, Part

CHAT_TENSORS = ("role", "content", "type", "tool_calls", "tool_call_id")
"""The tensors that hold messages."""


def decode_messages(tensors: Tensors) -> list[Message]:
    """Decode the messages in `role`, `content`, `type`, `tool_calls` and `tool_call_id`.

    Returns:
        No messages if all of these tensors are missing.

    Raises:
        InvalidInput: a tensor is missing, their lengths differ, or an element has a wrong form.
    """
    if not any(name in tensors for name in CHAT_TENSORS):
        return []
    roles = required_text(tensors, "role")
    for index, role in enumerate(roles):
        if not role.strip():
            raise InvalidInput(f"tensor 'role' element {index} is empty; expected a role such as 'user'")
    return _decode_one(roles[0], tensors) if len(roles) == 1 else _decode_many(roles, tensors)


def _decode_one(role: str, tensors: Tensors) -> list[Message]:
    calls = [call for element in optional_text(tensors, "tool_calls") or [] for call in _calls(element)]
    ids = optional_text(tensors, "tool_call_id") or []
    if len(ids) > 1:
        raise InvalidInput(f"tensor 'tool_call_id' has {len(ids)} elements; expected 1, as in 'role'")
    contents = optional_text(tensors, "content") if calls else required_text(tensors, "content")
    types = optional_text(tensors, "type") if contents else None
    return [Message(role, _parts(contents or [], types), tuple(calls), (ids[0] or None) if ids else None)]


def _parts(contents: Sequence[str], types: Sequence[str] | None) -> tuple[Part, ...]:
    if types is None:
        types = ["text"] * len(contents)
    if len(types) != len(contents):
        raise InvalidInput(f"tensor 'type' has {len(types)} elements; expected {len(contents)}, as in 'content'")
    return tuple(Part(kind or "text", value) for kind, value in zip(types, contents, strict=True))


def _decode_many(roles: Sequence[str], tensors: Tensors) -> list[Message]:
    count = len(roles)
    calls = [_calls(element) for element in _matching(tensors, "tool_calls", count) or [""] * count]
    ids = _matching(tensors, "tool_call_id", count) or [""] * count
    contents = _matching(tensors, "content", count)
    types = _matching(tensors, "type", count)
    if contents is None:
        if not all(calls):
            raise InvalidInput(f"tensor 'content' is missing; expected BYTES [{count}], as in 'role'")
        contents, types = [""] * count, None
        parts: list[tuple[Part, ...]] = [()] * count
    else:
        parts = _parts_of_many(contents, types)
    return [
        Message(role, part, tuple(call), call_id or None)
        for role, part, call, call_id in zip(roles, parts, calls, ids, strict=True)
    ]


def _parts_of_many(contents: Sequence[str], types: Sequence[str] | None) -> list[tuple[Part, ...]]:
    listed = [_json_list(kind) for kind in types] if types is not None else [None]
    if not all(kinds is not None for kinds in listed):
        return [_parts([content], None if types is None else [types[i]]) for i, content in enumerate(contents)]
    parts: list[tuple[Part, ...]] = []
    for index, (kinds, content) in enumerate(zip(listed, contents, strict=True)):
        values = _json_list(content)
        if values is None:
            raise InvalidInput(f"tensor 'content' element {index} is not a JSON list of texts, as 'type' is")
        if len(values) != len(kinds or []):
            raise InvalidInput(
                f"tensor 'content' element {index} lists {len(values)} parts; expected {len(kinds or [])}, as in 'type'"
            )
        parts.append(_parts(values, kinds))
    return parts


def _matching(tensors: Tensors, name: str, count: int) -> list[str] | None:
    elements = optional_text(tensors, name)
    if elements is not None and len(elements) != count:
        raise InvalidInput(f"tensor '{name}' has {len(elements)} elements; expected {count}, as in 'role'")
    return elements


_ONE_TEXT = '["text"]'
"""The `type` of nearly every message. Comparing with it is faster than parsing JSON."""


def _types_list(message: Message) -> str:
    types = [part.type for part in message.parts]
    return _ONE_TEXT if types == ["text"] else dumps(types)


def _json_list(text: str) -> list[str] | None:
    """Parse a JSON list of texts, or return None for anything else. Objects in it stay JSON texts."""
    if not text.startswith("["):
        return None
    if text == _ONE_TEXT:
        return ["text"]
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        return None
    items = cast(list[Json], value)
    return [item if isinstance(item, str) else dumps(item) for item in items]


def _calls(element: str) -> list[str]:
    """Parse the tool calls of one element: "" for none, a JSON object, or a JSON list of JSON texts."""
    if not element:
        return []
    calls = _json_list(element) if element.lstrip().startswith("[") else [element]
    if calls is None:
        raise InvalidInput("tensor 'tool_calls' has an element that is neither a JSON object nor a JSON list")
    # Write calls as `history` does, so that equal calls are equal texts.
    return [dumps(json_object(call, "an element of tensor 'tool_calls'")) for call in calls]


def encode_messages(messages: Sequence[Message]) -> list[ResponseOutput]:
    """Encode messages, at least one, as tensors. `decode_messages` is the inverse.

    Returns:
        Text tensors of shape `[n,1]`. `tool_calls` and `tool_call_id` are left out if no message has them; `content`
        and `type` if the only message has no parts.
    """
    outputs = [text_output("role", [message.role for message in messages])]
    if len(messages) == 1:
        only = messages[0]
        if only.parts:
            outputs.append(text_output("content", [part.value for part in only.parts]))
            outputs.append(text_output("type", [part.type for part in only.parts]))
        calls = list(only.tool_calls)
    else:
        outputs.append(text_output("content", [dumps([part.value for part in m.parts]) for m in messages]))
        outputs.append(text_output("type", [_types_list(message) for message in messages]))
        calls = [dumps(list(m.tool_calls)) if m.tool_calls else "" for m in messages]
    if any(calls):
        outputs.append(text_output("tool_calls", calls))
    if any(message.tool_call_id for message in messages):
        outputs.append(text_output("tool_call_id", [message.tool_call_id or "" for message in messages]))
    return outputs


def encode_history(messages: Sequence[Message]) -> ResponseOutput:
    """Encode messages, oldest first, as the `history` tensor."""
    return text_output("history", [message.to_history() for message in messages])


def decode_history(tensors: Tensors) -> list[Message]:
    """Decode the `history` tensor. Returns no messages if it is missing or empty."""
    elements = optional_text(tensors, "history") or []
    return [
        Message.from_history(element, f"tensor 'history' element {index}") for index, element in enumerate(elements)
    ]


def read_conversation(tensors: Tensors) -> list[Message]:
    """Return the conversation of a request: `history`, then the chat tensors unless they equal its end.

    Raises:
        InvalidInput: the request has neither, or they are malformed.
    """
    conversation = find_conversation(tensors)
    if not conversation:
        raise InvalidInput("tensor 'history' or the tensors 'role' and 'content' are missing; expected a conversation")
    return conversation


def find_conversation(tensors: Tensors) -> list[Message]:
    """Return the conversation like `read_conversation`, but no messages if the request has neither.

    Raises:
        InvalidInput: the tensors are malformed.
    """
    history, messages = decode_history(tensors), decode_messages(tensors)
    if messages and history[-len(messages) :] == messages:
        messages = []
    return history + messages
