"""Reads V2 tensors in every form that clients send, and writes them in the one form that pipelines keep."""

from .json_text import Json, dumps, json_object, loads
from .reading import (
    Tensors,
    flatten,
    float_elements,
    is_text,
    llm_parameters_of,
    optional_text,
    read_tensors,
    required_text,
    single_text,
    text_elements,
    value_text,
)
from .writing import PASSED_THROUGH, as_input, float_output, passed_through, request_of, text_input, text_output

__all__ = [
    "PASSED_THROUGH",
    "TENSOR_NAMES",
    "Json",
    "Tensors",
    "as_input",
    "dumps",
    "flatten",
    "float_elements",
    "float_output",
    "is_text",
    "json_object",
    "llm_parameters_of",
    "loads",
    "optional_text",
    "passed_through",
    "read_tensors",
    "request_of",
    "required_text",
    "single_text",
    "text_elements",
    "text_input",
    "text_output",
    "value_text",
]

TENSOR_NAMES = frozenset(
    (
        *("memory_id", "llm_parameters"),
        *("role", "content", "type", "tool_calls", "tool_call_id", "tools", "tool_choice", "parallel_tool_calls"),
        *("history", "output_all", "choices", "logprobs"),
        *("label", "score", "labels", "scores"),
    )
)
"""Names of the tensors that have the same meaning in the whole suite."""
