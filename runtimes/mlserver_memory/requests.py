"""What a request says besides its tensors."""

from collections.abc import Sequence
from typing import Any, cast

from mlserver.types import InferenceRequest

from mlserver_chat import InvalidInput, Message, request_headers
from mlserver_chat.requests.identity import MAX_MEMORY_ID, request_parameter
from mlserver_chat.tensors import json_object

from .settings import MAX_WINDOW, WindowSettings

_PROVENANCE = ("prompt", "prompt_version", "prompt_hash", "model")
"""Parameters of an LLM step's response, which Core 2 hands to the step after it."""


def provenance_of(request: InferenceRequest, messages: Sequence[Message]) -> dict[str, str]:
    """What produced an assistant's messages, where an LLM step's response parameters came along; and why it stopped,
    unless it had said all it wanted to (`cut`: the reader of a pipeline's stream went away; `length`, …). A user's
    message was produced by no prompt, whatever the parameters of the request say."""
    if any(message.role != "assistant" for message in messages):
        return {}
    values = {name: request_parameter(request, name) for name in (*_PROVENANCE, "finish_reason")}
    if values["finish_reason"] == "stop":
        del values["finish_reason"]
    return {name: value for name, value in values.items() if isinstance(value, str) and value}


def check_limits(messages: Sequence[Message], config: WindowSettings) -> None:
    """Refuses, before anything is stored, what would spoil every later turn.

    Raises:
        InvalidInput: a role, a part or a length that the settings don't allow.
    """
    for message in messages:
        if config.roles and message.role not in config.roles:
            raise InvalidInput(
                f"tensor 'role' holds a role that is not stored here; expected {', '.join(config.roles)}"
            )
        if config.types and any(part.type not in config.types for part in message.parts):
            raise InvalidInput(
                f"tensor 'type' holds a type that is not stored here; expected {', '.join(config.types)}"
            )
        size = sum(len(part.value) for part in message.parts)
        if config.max_message_chars is not None and size > config.max_message_chars:
            limit = config.max_message_chars
            raise InvalidInput(f"tensor 'content' has a message of {size} characters; expected at most {limit}")


def operation_of(request: InferenceRequest, config: WindowSettings, has_messages: bool) -> str:
    """The parameter `operation`; without one, `append` when a message came and else `window`.

    Raises:
        InvalidInput: unknown, not among the settings' `operations`, or one that has no use for the message that came.
            A chat pipeline's callers always send one, and so can ask it for nothing else than to append.
    """
    operation = request_parameter(request, "operation")
    if operation is None:
        operation = "append" if has_messages else "window"
    if operation not in config.operations:
        raise InvalidInput(f"parameter 'operation' asks for {operation!r:.40}; expected {', '.join(config.operations)}")
    if has_messages and operation != "append":
        raise InvalidInput(f"parameter 'operation' asks for {operation!r} beside a message; expected one or the other")
    return operation


def window_size_of(request: InferenceRequest, config: WindowSettings) -> int:
    """The parameter `window_size`, the vendor's `memory_parameters.window_size`, or the setting."""
    options = request_parameter(request, "memory_parameters")
    if isinstance(options, str):
        options = json_object(options, "parameter 'memory_parameters'")
    if not isinstance(options, dict | None):
        raise InvalidInput("parameter 'memory_parameters' is not an object; expected a JSON object or its text")
    nested: Any = cast(dict[str, Any], options or {}).get("window_size")
    return integer_of(request, "window_size", 1, MAX_WINDOW, config.window_size if nested is None else nested)


def integer_of(request: InferenceRequest, name: str, least: int, most: int, default: object) -> int:
    """A parameter that is a whole number, as a number or as text."""
    value = request_parameter(request, name)
    value = default if value is None else value
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise InvalidInput(f"parameter '{name}' is {value!r:.40}; expected a whole number from {least} to {most}")
    return number


def namespace_of(request: InferenceRequest, config: WindowSettings) -> str:
    """The namespace of the settings, or of the header that they name.

    Raises:
        InvalidInput: the header is missing, empty or too long.
    """
    if config.namespace_header is None:
        return config.namespace
    header = config.namespace_header
    namespace = request_headers(request).get(header, "")
    if not namespace:
        raise InvalidInput(f"header '{header}' is missing; expected 1 to {MAX_MEMORY_ID} characters")
    if len(namespace) > MAX_MEMORY_ID:
        raise InvalidInput(f"header '{header}' has {len(namespace)} characters; expected 1 to {MAX_MEMORY_ID}")
    if "\0" in namespace:
        raise InvalidInput(f"header '{header}' holds a NUL character; expected text without NUL")
    return namespace
