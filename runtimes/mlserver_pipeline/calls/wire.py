"""Converts between MLServer's types and the pipeline's messages, as gRPC would.

Core 2 calls every step over gRPC. So a step receives BYTES as `bytes`, datatypes as text, and parameters of three types
only; its answer is reduced in the same way. MLServer's protobuf converter handles the elements of tensors. The other
conversions are written here because that is faster, and a property test compares them with MLServer's converters.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from mlserver.grpc.converters import InferTensorContentsConverter
from mlserver.types import (
    Datatype,
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
)

from mlserver_chat import InvalidInput
from mlserver_chat.requests.identity import carried_headers
from mlserver_chat.tensors import flatten

from ..engine.messages import Parameter, StepMessage, Tensor

_INT64 = range(-(2**63), 2**63)


class NotCarried(ValueError):
    """gRPC can't carry the answer of a step. `str()` gives the reason in one sentence, without the data."""


def message_from_request(request: InferenceRequest) -> StepMessage:
    """Convert a client's request into a message, as Core 2's gateway does.

    Nested data is flattened, text becomes UTF-8 bytes, requested outputs are dropped, and numbers in parameters are
    truncated to integers.

    Raises:
        InvalidInput: data doesn't fit its datatype, or a parameter isn't text, a whole number or a boolean.
    """
    return StepMessage(
        request.id or "",
        _entry_parameters(request.parameters, "the request"),
        tuple(_entry_tensor(tensor) for tensor in request.inputs),
    )


def message_from_rest(response: InferenceResponse) -> StepMessage:
    """Convert a step's response that arrived over REST into the message that gRPC would have delivered.

    Raises:
        InvalidInput: see `message_from_request`.
    """
    return StepMessage(
        response.id or "",
        _carried_parameters(response.parameters),
        tuple(_entry_tensor(output) for output in response.outputs),
    )


def _entry_tensor(tensor: RequestInput | ResponseOutput) -> Tensor:
    if not is_utf8(tensor.name):
        raise InvalidInput("the name of a tensor holds half of a surrogate pair; expected text")
    datatype = Datatype(tensor.datatype).value
    flat = flatten(tensor.data.root)
    if datatype == "BYTES":
        flat = [_utf8(tensor.name, element) for element in flat]
    # The gateway sends FP16 as FP32.
    wide = "FP32" if datatype == "FP16" and not any(isinstance(element, bytes) for element in flat) else datatype
    data = carry(wide, flat)
    if data is None:
        raise InvalidInput(f"tensor '{tensor.name}' has an element that isn't {datatype}")
    parameters = _entry_parameters(tensor.parameters, f"tensor '{tensor.name}'")
    return Tensor(tensor.name, datatype, tuple(tensor.shape), data, parameters)


def _utf8(name: str, element: object) -> object:
    try:
        return element.encode("utf-8") if isinstance(element, str) else element
    except UnicodeEncodeError:
        raise InvalidInput(f"tensor '{name}' holds half of a surrogate pair; expected text") from None


def _entry_parameters(parameters: Parameters | None, where: str) -> dict[str, Parameter]:
    return {name: _entry_parameter(name, value, where) for name, value in _items(parameters)}


def _entry_parameter(name: str, value: object, where: str) -> Parameter:
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, float) and abs(value) < 2**63):
        value = int(value)
    if isinstance(value, int) and value in _INT64:
        return value
    if isinstance(value, str) and is_utf8(value):
        return value
    raise InvalidInput(
        f"parameter '{name}' of {where} can't pass a pipeline; expected text, a whole number or a boolean"
        + ("; send the tensor 'llm_parameters' instead" if name in ("llm_parameters", "kwargs") else "")
    )


def _items(parameters: Parameters | None) -> Iterable[tuple[str, Any]]:
    """Yield the parameters that were set, without the headers that MLServer adds."""
    if parameters is None:
        return
    if parameters.content_type is not None:
        yield "content_type", parameters.content_type
    yield from (parameters.model_extra or {}).items()


def request_for_step(message: StepMessage, headers: Mapping[str, str]) -> InferenceRequest:
    """Build the request for a step, as MLServer builds it from gRPC."""
    # Validation copies the lists of data, so a step that changes its data in place doesn't affect other steps.
    return InferenceRequest.model_validate(
        {
            "id": message.id,
            "parameters": {**message.parameters, "headers": dict(headers)},
            "inputs": _tensors(message),
        }
    )


def message_from_response(response: InferenceResponse) -> StepMessage:
    """Convert a step's response into the message that arrives over gRPC.

    Raises:
        NotCarried: MLServer could not send the response over gRPC.
    """
    return StepMessage(
        response.id or "",
        _carried_parameters(response.parameters),
        tuple(_carried_tensor(output) for output in response.outputs),
    )


def response_headers(response: InferenceResponse) -> dict[str, str]:
    """Return the `x-*` headers that a step adds."""
    headers: dict[str, Any] = (response.parameters and response.parameters.headers) or {}
    return carried_headers({name: str(value) for name, value in headers.items()})


def _carried_tensor(output: ResponseOutput) -> Tensor:
    datatype = Datatype(output.datatype).value
    data = carry(datatype, output.data.root)
    if not is_utf8(output.name):
        raise NotCarried("the name of a tensor can't be sent over gRPC; expected UTF-8 text")
    if data is None:
        raise NotCarried(
            f"tensor '{output.name}' of datatype {datatype} can't be sent over gRPC; "
            "its data must be flat, in range, and bytes if the datatype is BYTES"
        )
    return Tensor(output.name, datatype, tuple(output.shape), data, _carried_parameters(output.parameters))


def _carried_parameters(parameters: Parameters | None) -> dict[str, Parameter]:
    carried: dict[str, Parameter] = {}
    for name, value in _items(parameters):
        if not isinstance(value, bool | int | str):
            continue
        if (isinstance(value, int) and value not in _INT64) or (isinstance(value, str) and not is_utf8(value)):
            raise NotCarried(f"parameter '{name}' can't be sent over gRPC; expected 64 bits or UTF-8 text")
        carried[name] = value
    return carried


def response_to_client(name: str, message: StepMessage, headers: Mapping[str, str]) -> InferenceResponse:
    """Build the pipeline's response for MLServer, which sends the parameter `headers` as headers."""
    return InferenceResponse.model_validate(
        {
            "model_name": name,
            "id": message.id,
            "parameters": {**message.parameters, "headers": dict(headers)},
            "outputs": _tensors(message),
        }
    )


# Validating the whole request at once takes half the time of building it tensor by tensor.
def _tensors(message: StepMessage) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "datatype": tensor.datatype,
            "parameters": tensor.parameters or None,
            "data": tensor.data,
        }
        for tensor in message.tensors
    ]


_ONLY_BYTES = frozenset((bytes,))


def carry(datatype: str, data: Any) -> list[Any] | None:
    """Return the elements as they arrive over gRPC, with FP32 rounded, or None if gRPC can't carry them."""
    if data is None:
        return None
    try:
        if datatype == "BYTES" and _ONLY_BYTES.issuperset(map(type, data)):
            return list(data)
        sent = InferTensorContentsConverter.from_types(data, Datatype(datatype))
    except (TypeError, ValueError, OverflowError):
        return None
    return cast(list[Any], InferTensorContentsConverter.to_types(sent).root)


def is_utf8(value: str) -> bool:
    """Return whether a text can be encoded in UTF-8. Half of a surrogate pair can't."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
