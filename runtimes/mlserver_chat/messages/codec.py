"""Chat messages to tensors and back: the four encodings of the LLM Module's wire contract.

| case | `role` | `content`, `type` | `tool_calls` |
|---|---|---|---|
| one message, one part | `[1]` | plain text | one JSON object a call |
| one message, k parts | `[1]` | k elements, plain text | one JSON object a call |
| n messages | `[n]` | n elements, JSON lists iff every `type` is one, else plain | "" or a JSON list of JSON texts |
| tool traffic | | `content` may be missing beside `tool_calls` | `tool_call_id` `[n]`, "" or the id |

One message is always plain text, also when it looks like JSON. A missing `type` means text.
"""

from collections.abc import Sequence
from typing import cast

from mlserver.types import ResponseOutput

from ..errors import InvalidInput
from ..tensors import Json, Tensors, dumps, json_object, loads, optional_text, required_text, text_output
from .types import Message, Part

CHAT_TENSORS = ("role", "content", "type", "tool_calls", "tool_call_id")
"""The tensors that spell messages."""


def decode_messages(tensors: Tensors) -> list[Message]:
    """The messages that `role`, `content`, `type`, `tool_calls` and `tool_call_id` spell; none without these tensors.

    Raises:
        InvalidInput: a missing tensor, counts that disagree, or an element of the wrong form.
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
        Message(role, part, tuple(call), identity or None)
        for role, part, call, identity in zip(roles, parts, calls, ids, strict=True)
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
"""The `type` of nearly every message of a conversation, which needs no reading and writing."""


def _types_list(message: Message) -> str:
    types = [part.type for part in message.parts]
    return _ONE_TEXT if types == ["text"] else dumps(types)


def _json_list(text: str) -> list[str] | None:
    """The texts of a JSON list; None when `text` is anything else. Parts that are objects stay JSON text."""
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
    """The tool calls of one element: "" is none, else one JSON object or a JSON list of JSON texts."""
    if not element:
        return []
    calls = _json_list(element) if element.lstrip().startswith("[") else [element]
    if calls is None:
        raise InvalidInput("tensor 'tool_calls' has an element that is neither a JSON object nor a JSON list")
    # In the form that `history` gives them, so that the same call is the same text.
    return [dumps(json_object(call, "an element of tensor 'tool_calls'")) for call in calls]


def encode_messages(messages: Sequence[Message]) -> list[ResponseOutput]:
    """The tensors that spell `messages` (at least one); `decode_messages` is the inverse.

    `tool_calls` and `tool_call_id` are left out when no message has them, `content` and `type` when a lone message
    has no part.
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
    """The `history` tensor, oldest message first."""
    return text_output("history", [message.to_history() for message in messages])


def decode_history(tensors: Tensors) -> list[Message]:
    """The messages of the `history` tensor; none when it is absent or empty."""
    elements = optional_text(tensors, "history") or []
    return [
        Message.from_history(element, f"tensor 'history' element {index}") for index, element in enumerate(elements)
    ]


def read_conversation(tensors: Tensors) -> list[Message]:
    """The conversation a step reads: `history`, then the chat tensors unless they equal its end.

    Raises:
        InvalidInput: neither is there, or one of them is malformed.
    """
    conversation = find_conversation(tensors)
    if not conversation:
        raise InvalidInput("tensor 'history' or the tensors 'role' and 'content' are missing; expected a conversation")
    return conversation


def find_conversation(tensors: Tensors) -> list[Message]:
    """The same, empty where neither is there.

    Raises:
        InvalidInput: one of them is malformed.
    """
    history, messages = decode_history(tensors), decode_messages(tensors)
    if messages and history[-len(messages) :] == messages:
        messages = []
    return history + messages
