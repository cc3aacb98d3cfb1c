"""Writes V2 tensors. Text tensors have the shape `[n,1]` and `content_type: "str"`.

Core 2's pipelines turn text in any other form into base64.
"""

from collections.abc import Sequence
from typing import Any

from mlserver.types import Datatype, InferenceRequest, Parameters, RequestInput, ResponseOutput, TensorData

from .reading import Tensors, llm_parameters_of, text_elements


def text_output(name: str, values: Sequence[str]) -> ResponseOutput:
    """Build a text tensor of shape `[n,1]`. Half of a surrogate pair, which an API's JSON may contain, becomes "?"."""
    try:
        data = [value.encode() for value in values]
    except UnicodeEncodeError:
        data = [value.encode(errors="replace") for value in values]
    shape, parameters = [len(values), 1], {"content_type": "str"}
    # Validating all parts at once takes half the time of building them one by one.
    return ResponseOutput.model_validate(
        {"name": name, "datatype": Datatype.BYTES, "shape": shape, "data": data, "parameters": parameters}
    )


def float_output(name: str, values: Sequence[float]) -> ResponseOutput:
    """Build an FP64 tensor of shape `[n,1]`."""
    return ResponseOutput(name=name, datatype=Datatype.FP64, shape=[len(values), 1], data=TensorData(list(values)))


def text_input(name: str, values: Sequence[str]) -> RequestInput:
    """Build a text tensor of shape `[n,1]` for a request to another model."""
    return as_input(text_output(name, values))


def as_input(output: ResponseOutput) -> RequestInput:
    """Turn an output into a tensor for a request to another model."""
    return RequestInput.model_validate({field: getattr(output, field) for field in RequestInput.model_fields})


PASSED_THROUGH = ("memory_id", "llm_parameters")
"""Tensors that every runtime passes through, so that a step after a branch needs one source and no join."""


def passed_through(tensors: Tensors) -> list[ResponseOutput]:
    """Copy the tensors of `PASSED_THROUGH` to the outputs.

    Runtimes call it before they do anything else, so that the first step refuses what a later step couldn't read.

    Raises:
        InvalidInput: a tensor can't be read.
    """
    llm_parameters_of(tensors)
    return [text_output(name, text_elements(tensors[name])) for name in PASSED_THROUGH if name in tensors]


def request_of(inputs: Sequence[RequestInput], **parameters: Any) -> InferenceRequest:
    """Build a V2 request with these tensors and `parameters`."""
    return InferenceRequest(inputs=list(inputs), parameters=Parameters(**parameters) if parameters else None)
