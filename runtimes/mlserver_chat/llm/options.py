"""Generation options: where they come from and which of them a request may set.

Precedence: request, then the prompt's `invocation_config`, then the model's settings, then the backend's default.
"""

import json
from collections.abc import Collection, Mapping
from typing import cast

from mlserver.types import InferenceRequest

from ..errors import InvalidInput
from ..requests.identity import request_parameter
from ..tensors import Json, Tensors, json_object, llm_parameters_of, optional_text, single_text

DENIED = frozenset(
    ("model", "base_url", "api_key", "extra_headers", "extra_query", "extra_body", "timeout", "user", "store", "n")
)
"""Options that a request may set only where the setting `allow_overrides` names them."""

_IGNORED = frozenset(("stream", "stream_options"))
"""The caller chooses streaming by the URL; OpenAI clients send the option all the same."""


LENGTH_NAMES = ("max_tokens", "max_completion_tokens", "max_new_tokens")
"""Names of one option: OpenAI's old one, its new one, which some of its models insist on, and transformers' own."""


def merge_options(*lowest_first: Mapping[str, Json]) -> dict[str, Json]:
    """One set of options out of several, later ones winning, also where they call the length by another name."""
    merged: dict[str, Json] = {}
    for options in lowest_first:
        if any(name in options for name in LENGTH_NAMES):
            merged = {name: value for name, value in merged.items() if name not in LENGTH_NAMES}
        merged.update(options)
    return merged


def request_options(
    request: InferenceRequest, tensors: Tensors, allow_overrides: Collection[str] = ()
) -> dict[str, Json]:
    """The options a request carries: parameters `kwargs` and `llm_parameters`, the tensor `llm_parameters`, and the
    tool tensors.

    Raises:
        InvalidInput: not an object, or an option that requests may not set.
    """
    options: dict[str, Json] = {}
    for key in ("kwargs", "llm_parameters"):
        options.update(_parameter_object(request, key))
    options.update(llm_parameters_of(tensors))
    options.update(_tool_options(tensors))
    for key in options:
        if key in DENIED and key not in allow_overrides:
            raise InvalidInput(f"option '{key}' of 'llm_parameters' may not be set by a request")
    return {key: value for key, value in options.items() if key not in _IGNORED}


def _parameter_object(request: InferenceRequest, key: str) -> dict[str, Json]:
    value = request_parameter(request, key)
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        return json_object(value, f"parameter '{key}'")
    if isinstance(value, dict):
        return cast(dict[str, Json], value)
    raise InvalidInput(f"parameter '{key}' is not an object; expected a JSON object or its text")


def _tool_options(tensors: Tensors) -> dict[str, Json]:
    options: dict[str, Json] = {}
    tools = optional_text(tensors, "tools")
    if tools:
        options["tools"] = [json_object(tool, f"tensor 'tools' element {i}") for i, tool in enumerate(tools)]
    if "tool_choice" in tensors:
        choice = single_text(tensors, "tool_choice")
        options["tool_choice"] = json_object(choice, "tensor 'tool_choice'") if choice.startswith("{") else choice
    if "parallel_tool_calls" in tensors:
        text = single_text(tensors, "parallel_tool_calls").lower()
        if text not in ("true", "false"):
            raise InvalidInput("tensor 'parallel_tool_calls' is neither 'true' nor 'false'")
        options["parallel_tool_calls"] = json.loads(text)
    return options
