"""Checks the options that are not sent to the API as they are: the `openai` client's own, and fixed ones."""

from collections.abc import Mapping
from typing import Any

from mlserver_chat import InvalidInput

_FIXED = ("base_url", "api_key", "messages", "stream")
_OBJECTS = ("extra_headers", "extra_query", "extra_body")


def check_options(params: Mapping[str, Any]) -> None:
    """Refuse options that a single call can't set. The API checks all others.

    Raises:
        InvalidInput: an option can't be set, or its value is wrong. The sentence names the option.
    """
    for name in _FIXED:
        if name in params:
            raise InvalidInput(f"option '{name}' can't be set for a single call")
    for name in _OBJECTS:
        if not isinstance(params.get(name) or {}, dict):
            raise InvalidInput(f"option '{name}' is not an object")
    timeout = params.get("timeout", 1)
    if timeout is not None and (not isinstance(timeout, int | float) or not timeout > 0):
        raise InvalidInput("option 'timeout' is not a number of seconds greater than 0")
