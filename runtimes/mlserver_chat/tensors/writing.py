"""Writing V2 tensors in the one form that every path keeps: shape `[n,1]` with `content_type: "str"`.

Through a pipeline anything else comes out as base64.
"""

from collections.abc import Sequence
from typing import Any

from mlserver.types import Datatype, InferenceRequest, Parameters, RequestInput, ResponseOutput, TensorData

from .reading import Tensors, llm_parameters_of, text_elements


def text_output(name: str, values: Sequence[str]) -> ResponseOutput:
    """A text tensor of shape `[n,1]`, as every output of the suite. Half of a surrogate pair, which is no text and
    which the JSON of an API may hold all the same, becomes "?"."""
    try:
        data = [value.encode() for value in values]
    except UnicodeEncodeError:
        data = [value.encode(errors="replace") for value in values]
    shape, parameters = [len(values), 1], {"content_type": "str"}
    # All at once, which takes half the time of building the parts one by one.
    return ResponseOutput.model_validate(
        {"name": name, "datatype": Datatype.BYTES, "shape": shape, "data": data, "parameters": parameters}
    )


def float_output(name: str, values: Sequence[float]) -> ResponseOutput:
    """An FP64 tensor of shape `[n,1]`."""
    return ResponseOutput(name=name, datatype=Datatype.FP64, shape=[len(values), 1], data=TensorData(list(values)))


def text_input(name: str, values: Sequence[str]) -> RequestInput:
    """A text tensor of a request to another model, in the form of `text_output`."""
    return as_input(text_output(name, values))


def as_input(output: ResponseOutput) -> RequestInput:
    """The same tensor in a request to another model."""
    return RequestInput.model_validate({field: getattr(output, field) for field in RequestInput.model_fields})


PASSED_THROUGH = ("memory_id", "llm_parameters")
"""Tensors that every runtime hands on unchanged, so that a step after a branch needs one source and no join."""


def passed_through(tensors: Tensors) -> list[ResponseOutput]:
    """The outputs that copy the tensors of `PASSED_THROUGH` that came in.

    Called before anything is done: what no step behind could read is refused by the first.

    Raises:
        InvalidInput: they can't be read.
    """
    llm_parameters_of(tensors)
    return [text_output(name, text_elements(tensors[name])) for name in PASSED_THROUGH if name in tensors]


def request_of(inputs: Sequence[RequestInput], **parameters: Any) -> InferenceRequest:
    """A V2 request of these tensors, with request-level `parameters` if any."""
    return InferenceRequest(inputs=list(inputs), parameters=Parameters(**parameters) if parameters else None)
