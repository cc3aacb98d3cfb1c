"""What a request must be before a runtime looks at it: MLServer lets it through, and would fail after the effect."""

import re

from mlserver.types import Datatype, InferenceRequest, RequestInput

from ..errors import InvalidInput
from ..limits import ElementBudget
from .reading import count_elements, flatten

MAX_ID = 255
"""Longest `id` of a request, in characters."""
MAX_NAME = 255
"""Longest name of a tensor, in characters."""

_ID = re.compile(rf"[!-~]([ -~]{{0,{MAX_ID - 2}}}[!-~])?")
"""What a header of HTTP and the metadata of gRPC can both carry."""
_DATATYPES = frozenset((*Datatype, *(datatype.value for datatype in Datatype)))


def check_id(request: InferenceRequest) -> None:
    """Refuses an `id` that MLServer can't put into the response's headers (`Ce-Id`).

    Raises:
        InvalidInput: it is too long, or isn't printable ASCII.
    """
    if request.id and not _ID.fullmatch(request.id):
        raise InvalidInput(f"'id' is no header's value; expected 1 to {MAX_ID} printable ASCII characters")


def check_tensors(request: InferenceRequest) -> None:
    """Refuse tensors that can't be read in any way. A shape that merely disagrees with the number of elements is fine.

    Raises:
        InvalidInput: an overlong or unprintable name; an unknown datatype, which only gRPC lets through; a negative
            size; data where a size is 0; more elements or dimensions than the server's limits.
    """
    budget = ElementBudget.of_request()
    for tensor in request.inputs:
        # What a sentence and a log line may repeat.
        if len(tensor.name) > MAX_NAME or not tensor.name.isprintable():
            raise InvalidInput(f"a tensor's name is no name; expected up to {MAX_NAME} printable characters")
        if tensor.datatype not in _DATATYPES:
            datatype = f"{tensor.datatype!r:.40}"
            raise InvalidInput(
                f"tensor '{tensor.name}' has the unknown datatype {datatype}; expected one such as BYTES"
            )
        declared = budget.take(tensor.name, tensor.shape)
        budget.take_held(declared, count_elements(tensor.data.root, declared + budget.left))
        if tensor.shape and min(tensor.shape) < 1:
            _check_sizes(tensor)


def _check_sizes(tensor: RequestInput) -> None:
    if min(tensor.shape) < 0:
        raise InvalidInput(f"tensor '{tensor.name}' has shape {tensor.shape}; expected sizes from 0 on")
    if flatten(tensor.data.root):
        raise InvalidInput(f"tensor '{tensor.name}' has data under shape {tensor.shape}, which holds none")
