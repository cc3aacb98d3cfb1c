"""Reads and writes JSON as Core 2's pipeline gateway does, which differs from MLServer."""

import base64
import json
import math
from typing import Any, cast

import numpy as np
from mlserver.types import Datatype

from mlserver_chat import InvalidInput
from mlserver_chat.limits import ElementBudget, check_dimensions, check_tensor_count
from mlserver_chat.tensors import flatten

from ..calls.wire import carry, is_utf8
from ..engine.messages import Parameter, StepMessage, Tensor

_INT64 = 2**63


class BadRequest(ValueError):
    """A request that Core 2's gateway answers with 400 or drops. `str()` gives the reason in one sentence."""


def read_request(body: bytes) -> StepMessage:
    """Convert the body of a request into a message.

    As in the gateway, the id and unknown keys are dropped. Data is flattened and padded with zeros to the size of its
    shape. Numbers in parameters are truncated to integers.

    Raises:
        BadRequest: the body isn't a V2 request, or the gateway can't convert it.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(content, dict):
        raise BadRequest("the body is not a JSON object")
    request = cast(dict[str, Any], content)
    tensors = request.get("inputs")
    if not isinstance(tensors, list):
        raise BadRequest("'inputs' is missing; expected a list of tensors")
    inputs = cast(list[Any], tensors)
    budget = ElementBudget.of_request()
    try:
        check_tensor_count("inputs", len(inputs))
        message_tensors = tuple(_tensor(tensor, index, budget) for index, tensor in enumerate(inputs))
    except InvalidInput as error:
        raise BadRequest(str(error)) from error
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    return StepMessage("", _parameters(request.get("parameters"), "the request"), message_tensors)


def _tensor(value: object, index: int, budget: ElementBudget) -> Tensor:
    if not isinstance(value, dict):
        raise BadRequest(f"input {index} is not an object")
    tensor = cast(dict[str, Any], value)
    name, shape, datatype = tensor.get("name"), tensor.get("shape"), tensor.get("datatype")
    if not isinstance(name, str) or not is_utf8(name):
        raise BadRequest(f"input {index} has no name")
    if not isinstance(shape, list) or not all(_is_size(size) for size in cast(list[Any], shape)):
        raise BadRequest(f"tensor '{name}' has no shape; expected a list of whole numbers")
    if not isinstance(datatype, str) or datatype not in Datatype.__members__:
        raise BadRequest(f"tensor '{name}' has the unknown datatype {datatype!r:.40}")
    sizes = tuple(cast(list[int], shape))
    data = _data(name, datatype, sizes, tensor.get("data"), budget)
    return Tensor(name, datatype, sizes, data, _parameters(tensor.get("parameters"), f"tensor '{name}'"))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _data(name: str, datatype: str, shape: tuple[int, ...], value: object, budget: ElementBudget) -> list[Any]:
    """Return the tensor's elements, padded with zeros to the size of its shape."""
    check_dimensions(name, shape)
    # For BYTES, Core 2 allocates the first dimension only.
    size = budget.take(name, shape[:1] if datatype == "BYTES" else shape)
    if not isinstance(value, list):
        raise BadRequest(f"tensor '{name}' has no data; expected a list")
    if datatype == "BYTES" and not shape:
        raise BadRequest(f"tensor '{name}' has shape []; expected [n] or [n,1]")
    flat = flatten(value)
    if len(flat) > size:
        rule = "Core 2 allocates the first dimension only" if datatype == "BYTES" else "that shape has fewer"
        raise BadRequest(f"tensor '{name}' has more than {size} elements under shape {list(shape)}; {rule}")
    budget.take_padding(name, size - len(flat))
    elements = [_element(name, datatype, element) for element in flat]
    zero = b"" if datatype == "BYTES" else False if datatype == "BOOL" else 0
    data = carry("FP32" if datatype == "FP16" else datatype, elements + [zero] * (size - len(flat)))
    # A number that overflowed to infinity could not be written in a JSON answer.
    if data is None or (datatype in ("FP16", "FP32") and any(map(math.isinf, data[: len(flat)]))):
        raise BadRequest(f"tensor '{name}' has an element that isn't {datatype}")
    return data


def _element(name: str, datatype: str, element: object) -> object:
    if datatype == "BYTES" and isinstance(element, str):
        if not is_utf8(element):
            raise BadRequest(f"tensor '{name}' holds half of a surrogate pair")
        return element.encode("utf-8")
    if datatype == "BOOL" and isinstance(element, bool):
        return element
    if datatype not in ("BYTES", "BOOL") and type(element) is int:
        return element
    if datatype not in ("BYTES", "BOOL") and type(element) is float and math.isfinite(element):
        return element if datatype.startswith("FP") else int(element)
    raise BadRequest(f"tensor '{name}' has an element that isn't {datatype}")


def _parameters(value: object, where: str) -> dict[str, Parameter]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"the parameters of {where} are not an object")
    given = cast(dict[str, Any], value)
    if not all(map(is_utf8, given)):
        raise BadRequest(f"the name of a parameter of {where} holds half of a surrogate pair")
    return {name: _parameter(name, each, where) for name, each in given.items()}


def _parameter(name: str, value: object, where: str) -> Parameter:
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)
    if (isinstance(value, str) and is_utf8(value)) or (isinstance(value, int) and -_INT64 <= value < _INT64):
        return value
    raise BadRequest(f"parameter '{name}' of {where} can't pass a pipeline; expected text, a whole number or a boolean")


def write_response(message: StepMessage) -> bytes:
    """Convert a pipeline's answer to JSON.

    As in the gateway, `model_name` is empty and there is no id. Each tensor starts with its data, flattened. BYTES are
    in base64 unless the tensor's content_type is `str` or `datetime`.

    Raises:
        ValueError: a number is NaN or infinite, or a text isn't UTF-8.
    """
    answer: dict[str, Any] = {"model_name": ""}
    if message.parameters:
        answer["parameters"] = dict(message.parameters)
    if message.tensors:
        answer["outputs"] = [_written(tensor) for tensor in message.tensors]
    return json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _written(tensor: Tensor) -> dict[str, Any]:
    written: dict[str, Any] = {
        "data": _printable(tensor) or None,
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
    }
    return written | ({"parameters": dict(tensor.parameters)} if tensor.parameters else {})


def _printable(tensor: Tensor) -> list[Any]:
    if tensor.datatype == "BYTES":
        if tensor.parameters.get("content_type") in ("str", "datetime"):
            return [element.decode("utf-8") for element in tensor.data]
        return [base64.b64encode(element).decode("ascii") for element in tensor.data]
    if tensor.datatype in ("FP16", "FP32"):
        return [_short(float(str(np.float32(element)))) for element in tensor.data]
    return [_short(element) for element in tensor.data] if tensor.datatype == "FP64" else tensor.data


def _short(number: float) -> float | int:
    """Return a whole number as an integer. The gateway prints 10.0 as 10."""
    return int(number) if number.is_integer() and abs(number) < 1e21 else number
