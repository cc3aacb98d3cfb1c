"""Generation options: their sources, their limits, and those that a request may set.

Precedence: request, then the prompt's `invocation_config`, then the model's settings, then the backend's default.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import cast

from mlserver.types import InferenceRequest

from ..errors import InvalidInput
from ..limits import MAX_STOP_CHARACTERS, GenerationLimits
from ..requests.identity import request_parameter
from ..tensors import Json, Tensors, json_object, llm_parameters_of, optional_text, single_text

DEFAULT_ALLOWED = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "do_sample", "seed"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("stop", "logit_bias", "logprobs", "top_logprobs", "stream_options"),
        *("response_format", "structured_outputs"),
        *("tools", "tool_choice", "parallel_tool_calls"),
        *("max_tokens", "max_completion_tokens", "max_new_tokens"),
    )
)
"""Options that a request may set, unless the setting `allowed_options` replaces this list."""

_NEUTRAL: Mapping[str, Callable[[Json], bool]] = {
    "n": lambda value: _equals(value, 1),
    "store": lambda value: value is False,
    "service_tier": lambda value: value == "auto",
    "top_logprobs": lambda value: _equals(value, 0),
    "logprobs": lambda value: value is False,
    "logit_bias": lambda value: value == {},
    "response_format": lambda value: value == {"type": "text"},
    "presence_penalty": lambda value: _equals(value, 0),
    "frequency_penalty": lambda value: _equals(value, 0),
    "tools": lambda value: value == [],
}
"""Values without effect. OpenAI clients send them, but some models refuse their options. All LLM steps accept these
values and never send them on."""

_UNUSED = ("user", "metadata")
"""Options that describe the caller and don't change the answer. They are dropped unless requests may set them."""


def _equals(value: Json, number: int) -> bool:
    return not isinstance(value, bool) and value == number


LENGTH_NAMES = ("max_tokens", "max_completion_tokens", "max_new_tokens")
"""Names of the length option: OpenAI's old and new name (some models need the new one), and transformers' name."""


def merge_options(*lowest_first: Mapping[str, Json]) -> dict[str, Json]:
    """Merge options; later ones take precedence. The names of the length count as one option."""
    merged: dict[str, Json] = {}
    for options in lowest_first:
        if any(name in options for name in LENGTH_NAMES):
            merged = {name: value for name, value in merged.items() if name not in LENGTH_NAMES}
        merged.update(options)
    return merged


def without_neutral(options: Mapping[str, Json]) -> dict[str, Json]:
    """Drop nulls, values without effect, and `parallel_tool_calls` without `tools`."""
    kept = {name: value for name, value in options.items() if value is not None and not _is_neutral(name, value)}
    if "tools" not in kept:
        kept.pop("parallel_tool_calls", None)
    return kept


def _is_neutral(name: str, value: Json) -> bool:
    return name in _NEUTRAL and _NEUTRAL[name](value)


class RequestOptions:
    """Reads and checks the generation options of requests.

    Args:
        allowed: names that a request may set. Other options are refused, unless their value has no effect.
        limits: the limits on the length of an answer, `n` and `stop`.
    """

    def __init__(self, allowed: Collection[str], limits: GenerationLimits):
        self._allowed = allowed
        self._limits = limits

    def read(self, request: InferenceRequest, tensors: Tensors) -> dict[str, Json]:
        """Return the options of a request.

        They come from the parameters `kwargs` and `llm_parameters`, the tensor `llm_parameters`, and the tool
        tensors. Later ones take precedence.

        Raises:
            InvalidInput: the options are not an object, a request may not set one of them, or a value exceeds its
                limit.
        """
        options: dict[str, Json] = {}
        for key in ("kwargs", "llm_parameters"):
            options.update(_parameter_object(request, key))
        options.update(llm_parameters_of(tensors))
        options.update(_tool_options(tensors))
        # The URL decides whether the answer is streamed, but OpenAI clients send the option too.
        options.pop("stream", None)
        return {name: self._checked(name, value) for name, value in options.items() if self._is_set(name, value)}

    def _is_set(self, name: str, value: Json) -> bool:
        """Whether to keep an option of a request.

        Raises:
            InvalidInput: a request may not set it.
        """
        if name in self._allowed:
            # Keep null and neutral values: they override the settings, and are dropped after merging.
            return True
        if value is None or name in _UNUSED or _is_neutral(name, value):
            return False
        raise InvalidInput(f"option '{_shown(name)}' of 'llm_parameters' may not be set by a request")

    def _checked(self, name: str, value: Json) -> Json:
        """Check a value against the limits. The backend checks its type."""
        limits = self._limits
        if name in LENGTH_NAMES and _is_number(value):
            if value == -1:
                return limits.max_tokens
            _check_most(name, value, limits.max_tokens)
        if name == "n" and _is_number(value):
            _check_most(name, value, limits.max_n)
        if name == "stop" and value is not None:
            _check_stop(value, limits.max_stop)
        if name == "stream_options" and value is not None:
            return _usage_option(value)
        return value


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_most(name: str, value: float, most: int) -> None:
    if value > most:
        raise InvalidInput(f"option '{name}' exceeds this model's limit; expected at most {most}")


def _check_stop(value: Json, most: int) -> None:
    texts = cast(list[Json], value) if isinstance(value, list) else [value]
    if len(texts) > most:
        raise InvalidInput(f"option 'stop' has {len(texts)} texts; expected at most {most}")
    for text in texts:
        if not isinstance(text, str):
            raise InvalidInput("option 'stop' is not a text or a list of texts")
        if len(text) > MAX_STOP_CHARACTERS:
            raise InvalidInput(
                f"option 'stop' has a text of {len(text)} characters; expected at most {MAX_STOP_CHARACTERS}"
            )


def _usage_option(value: Json) -> Json:
    """Reduce `stream_options` to `include_usage`, the only key that has an effect. Returns None unless it is true."""
    if not isinstance(value, dict):
        raise InvalidInput("option 'stream_options' is not an object")
    wanted = cast(dict[str, Json], value).get("include_usage", False)
    if not isinstance(wanted, bool):
        raise InvalidInput("option 'stream_options.include_usage' is not true or false")
    return {"include_usage": True} if wanted else None


def _shown(name: str) -> str:
    """Return the part of an option's name that an error sentence may repeat."""
    return "".join(filter(str.isprintable, name[:64]))


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
