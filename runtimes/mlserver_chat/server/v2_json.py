"""Bounds V2 requests in JSON before MLServer validates them, and the answer to those that it refuses.

MLServer's validation reports every wrong element of a request. Five million empty tensors, which fit in 15 MiB, would
take minutes and 18 GiB.
"""

from collections.abc import Mapping
from typing import Any, cast

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from ..errors import InvalidInput
from ..limits import MAX_DIMENSIONS, ElementBudget, check_parameter_count, check_tensor_count
from ..tensors.reading import count_elements

SMALL_REQUEST = 16 * 1024
"""Bytes of a body that needs no check, because reporting all its faults costs little."""
_MOST_ERRORS = 10


def check_v2_request(body: bytes) -> None:
    """Refuse a V2 request with too many tensors, parameters, dimensions or elements. MLServer reports other faults.

    Raises:
        InvalidInput: the request is refused.
    """
    # Parsing makes all lists and objects, and Python takes most of a second for a million of them.
    ElementBudget.of_request().take_held(0, body.count(b"[") + body.count(b"{"))
    try:
        request: Any = orjson.loads(body)
    except ValueError:
        return
    check_parameter_count(len(_object(_value(request, "parameters"))))
    budget = ElementBudget.of_request()
    for kind in ("inputs", "outputs"):
        tensors = _list(_value(request, kind))
        check_tensor_count(kind, len(tensors))
        for index, tensor in enumerate(tensors):
            check_parameter_count(len(_object(_value(tensor, "parameters"))))
            dimensions = len(_list(_value(tensor, "shape")))
            if dimensions > MAX_DIMENSIONS:
                raise InvalidInput(f"tensor {index} has {dimensions} dimensions; expected at most {MAX_DIMENSIONS}")
            budget.take_held(0, count_elements(_value(tensor, "data"), budget.left))


def _value(thing: object, key: str) -> Any:
    """Return the value under `key` of a JSON object, otherwise None."""
    return _object(thing).get(key)


def _object(thing: object) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], thing) if isinstance(thing, Mapping) else {}


def _list(thing: object) -> list[Any]:
    return cast(list[Any], thing) if isinstance(thing, list) else []


async def validation_errors(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that isn't V2 as MLServer does, without a copy of the request for each error."""
    assert isinstance(error, RequestValidationError)
    details = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()[:_MOST_ERRORS]]
    return JSONResponse({"detail": details}, 422)
