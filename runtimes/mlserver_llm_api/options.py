"""Options that are not part of a request's body: those of the `openai` client, and those that nobody may set."""

from collections.abc import Mapping
from typing import Any

from mlserver_chat import InvalidInput

_FIXED = ("base_url", "api_key", "messages", "stream")
_OBJECTS = ("extra_headers", "extra_query", "extra_body")


def check_options(params: Mapping[str, Any]) -> None:
    """Refuses what can't be an option of a single call. The API judges the rest.

    Raises:
        InvalidInput: names the option.
    """
    for name in _FIXED:
        if name in params:
            raise InvalidInput(f"option '{name}' can't be set for a single call")
    for name in _OBJECTS:
        if not isinstance(params.get(name) or {}, dict):
            raise InvalidInput(f"option '{name}' is not an object")
    timeout = params.get("timeout", 1)
    if timeout is not None and (not isinstance(timeout, int | float) or not timeout > 0):
        raise InvalidInput("option 'timeout' is not a number of seconds over 0")
