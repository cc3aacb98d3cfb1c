"""Checks of a request that MLServer leaves out, and for which it would fail after the runtime has answered."""

import re

from mlserver.types import Datatype, InferenceRequest, RequestInput

from ..errors import InvalidInput
from ..limits import ElementBudget
from .reading import count_elements, flatten

MAX_ID = 255
"""Most characters of a request's `id`."""
MAX_NAME = 255
"""Most characters of a tensor's name."""

_ID = re.compile(rf"[!-~]([ -~]{{0,{MAX_ID - 2}}}[!-~])?")
"""Ids that HTTP headers and gRPC metadata can carry."""
_DATATYPES = frozenset((*Datatype, *(datatype.value for datatype in Datatype)))


def check_id(request: InferenceRequest) -> None:
    """Refuse an `id` that MLServer can't copy into the header `Ce-Id` of the response.

    Raises:
        InvalidInput: the `id` is too long, or not printable ASCII.
    """
    if request.id and not _ID.fullmatch(request.id):
        raise InvalidInput(f"'id' can't be sent in a header; expected 1 to {MAX_ID} printable ASCII characters")


def check_tensors(request: InferenceRequest) -> None:
    """Refuse tensors that can't be read. A shape may disagree with the number of elements.

    Raises:
        InvalidInput: a name is too long or not printable, a datatype is unknown (gRPC accepts any), a size is negative,
            there is data under a size of 0, or there are more elements or dimensions than the server's limits.
    """
    budget = ElementBudget.of_request()
    for tensor in request.inputs:
        # Error sentences and log lines repeat the name.
        if len(tensor.name) > MAX_NAME or not tensor.name.isprintable():
            raise InvalidInput(f"invalid tensor name; expected at most {MAX_NAME} printable characters")
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
