"""V2 tensors, read by hand and written in the one form that every path keeps.

Read: BYTES as `str` (REST), `bytes` (gRPC and every pipeline) or base64 (`content_type: "base64"`), shapes `[n]`,
`[n,1]` and `[1,n]`, data flat, nested or a bare string. MLServer's own StringCodec turns unknown elements into "" and
a bare string into a list of letters, so it isn't used for reading.
Written: shape `[n,1]` with `content_type: "str"`; through a pipeline anything else comes out as base64.
"""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard, cast

from mlserver.types import Datatype, InferenceRequest, Parameters, RequestInput, ResponseOutput, TensorData

from .errors import InvalidInput

Tensors = Mapping[str, RequestInput]
"""The tensors of one request by name, each once."""

Json = Any
"""A value that `json` can write."""


def read_tensors(inputs: Iterable[RequestInput]) -> dict[str, RequestInput]:
    """The request's tensors by name. A join may deliver a tensor twice: equal data counts once.

    Raises:
        InvalidInput: one name with different data.
    """
    found: dict[str, RequestInput] = {}
    for tensor in inputs:
        first = found.setdefault(tensor.name, tensor)
        if first is not tensor and not _same(first, tensor):
            raise InvalidInput(f"tensor '{tensor.name}' came twice with different data; expected it once")
    return found


def _same(a: RequestInput, b: RequestInput) -> bool:
    if a.datatype != b.datatype:
        return False
    if is_text(a):
        return text_elements(a) == text_elements(b)
    return flatten(a.data.root) == flatten(b.data.root)


_SCALARS = (bytes, str, bytearray)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return not isinstance(value, _SCALARS) and isinstance(value, Sequence)


_LEAVES = frozenset((bytes, str, int, float, bool))


def _is_flat(data: Any) -> TypeGuard[list[Any]]:
    """What data nearly always is, told at the speed of C."""
    return type(data) is list and _LEAVES.issuperset(map(type, cast("list[Any]", data)))


def flatten(data: Any) -> list[Any]:
    """A tensor's elements in row-major order. A bare string or number is one element, null is none."""
    if _is_flat(data):
        return data.copy()
    if data is None:
        return []
    if hasattr(data, "tolist"):
        data = data.tolist()
    if not _is_list(data):
        return [data]
    flat: list[Any] = []
    for item in data:
        if _is_list(item):
            flat.extend(flatten(item))
        else:
            flat.append(item)
    return flat


_BYTES = (Datatype.BYTES.value, Datatype.BYTES)


def is_text(tensor: RequestInput | ResponseOutput) -> bool:
    """Whether the tensor is of datatype BYTES. MLServer's types hold the datatype as text or as `Datatype`."""
    return tensor.datatype in _BYTES


def text_elements(tensor: RequestInput | ResponseOutput) -> list[str]:
    """The elements of a text tensor, of a request or of another model's response.

    A declared shape that disagrees with the number of elements is accepted: documented examples of the field send two
    elements under `[1]`.

    Raises:
        InvalidInput: not BYTES, a shape with two dimensions over 1, an element that isn't text, or not UTF-8.
    """
    name = tensor.name
    if not is_text(tensor):
        raise InvalidInput(f"tensor '{name}' has datatype {Datatype(tensor.datatype).value}; expected BYTES")
    if len(tensor.shape) > 1 and len([size for size in tensor.shape if size > 1]) > 1:
        raise InvalidInput(f"tensor '{name}' has shape {tensor.shape}; expected [n], [n,1] or [1,n]")
    is_base64 = tensor.parameters is not None and tensor.parameters.content_type == "base64"
    data = cast(Any, tensor.data.root)
    plain = None if is_base64 else _plain(data)
    if plain is not None:
        return plain
    return [_text(name, index, element, is_base64) for index, element in enumerate(flatten(data))]


_ONLY_BYTES, _ONLY_TEXT = frozenset((bytes,)), frozenset((str,))


def _plain(data: Any) -> list[str] | None:
    """The elements of what a tensor nearly always is, all at once: a list of texts, or of their bytes; None for
    anything else, and for what is no text."""
    if type(data) is not list:
        return None
    kinds = set(map(type, cast("list[Any]", data)))
    try:
        if kinds <= _ONLY_BYTES:
            return [element.decode() for element in cast("list[bytes]", data)]
        if kinds <= _ONLY_TEXT:
            # No half of a surrogate pair.
            "".join(cast("list[str]", data)).encode()
            return cast("list[str]", data).copy()
    except UnicodeError:
        pass
    return None


def _text(name: str, index: int, element: object, is_base64: bool) -> str:
    if is_base64 and isinstance(element, str | bytes):
        try:
            element = base64.b64decode(element, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput(f"tensor '{name}' element {index} is not base64, as its content_type says") from None
    if isinstance(element, bytes):
        try:
            return element.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInput(f"tensor '{name}' element {index} is not UTF-8 text") from None
    if isinstance(element, str):
        try:
            element.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput(f"tensor '{name}' element {index} holds half of a surrogate pair") from None
        return element
    raise InvalidInput(f"tensor '{name}' element {index} is {_kind(element)}; expected text")


def _kind(value: object) -> str:
    names: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def float_elements(tensor: RequestInput | ResponseOutput) -> list[float]:
    """The elements of a number tensor, of a request or of another model's response.

    Raises:
        InvalidInput: an element that isn't a number.
    """
    elements = flatten(tensor.data.root)
    for index, element in enumerate(elements):
        if isinstance(element, bool) or not isinstance(element, int | float):
            raise InvalidInput(f"tensor '{tensor.name}' element {index} is {_kind(element)}; expected a number")
    return [float(element) for element in elements]


def optional_text(tensors: Tensors, name: str) -> list[str] | None:
    """The elements of tensor `name`, or None when the request has no such tensor."""
    tensor = tensors.get(name)
    return None if tensor is None else text_elements(tensor)


def required_text(tensors: Tensors, name: str) -> list[str]:
    """The elements of tensor `name`, at least one.

    Raises:
        InvalidInput: absent or empty.
    """
    elements = optional_text(tensors, name)
    if elements is None:
        raise InvalidInput(f"tensor '{name}' is missing; expected BYTES [n]")
    if not elements:
        raise InvalidInput(f"tensor '{name}' is empty; expected at least one element")
    return elements


def single_text(tensors: Tensors, name: str) -> str:
    """The only element of tensor `name`.

    Raises:
        InvalidInput: absent, empty or more than one element.
    """
    elements = required_text(tensors, name)
    if len(elements) > 1:
        raise InvalidInput(f"tensor '{name}' has {len(elements)} elements; expected 1")
    return elements[0]


def value_text(tensor: RequestInput) -> str:
    """A tensor of any datatype as the text of a prompt's placeholder; several elements become lines."""
    if is_text(tensor):
        return "\n".join(text_elements(tensor))
    return "\n".join(json.dumps(element) for element in flatten(tensor.data.root))


def json_object(text: str, where: str) -> dict[str, Json]:
    """`text` parsed as one JSON object.

    Raises:
        InvalidInput: not JSON, or not an object. `where` names the tensor or key in the sentence.
    """
    try:
        value = loads(text)
    except UnicodeEncodeError:
        raise InvalidInput(f"{where} holds half of a surrogate pair; expected text") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{where} is not JSON; expected a JSON object") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is {_kind(value)} in JSON; expected a JSON object")
    return cast(dict[str, Json], value)


def _no_number(constant: str) -> Json:
    raise ValueError(f"JSON has no {constant}")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _no_number("infinity")


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)


def loads(text: str) -> Json:
    """JSON to a value that can be written again.

    Raises:
        ValueError: not JSON, which NaN and 1e999 aren't; as UnicodeEncodeError, an escape that spells half of a
            surrogate pair, which UTF-8 lacks.
        RecursionError: nested too deeply.
    """
    value = _DECODER.decode(text)
    if "\\u" in text:
        dumps(value).encode("utf-8")
    return value


_ENCODER = json.JSONEncoder(ensure_ascii=False)


def dumps(value: Json) -> str:
    """JSON as the `history` tensor prints it: ", " and ": ", no ASCII escapes."""
    return _ENCODER.encode(value)


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


TENSOR_NAMES = frozenset(
    (
        *("memory_id", "llm_parameters"),
        *("role", "content", "type", "tool_calls", "tool_call_id", "tools", "tool_choice", "parallel_tool_calls"),
        *("history", "output_all", "choices", "logprobs"),
        *("label", "score", "labels", "scores"),
    )
)
"""The tensors that mean the same everywhere in the suite."""

PASSED_THROUGH = ("memory_id", "llm_parameters")
"""Tensors that every runtime hands on unchanged, so that a step after a branch needs one source and no join."""


def llm_parameters_of(tensors: Tensors) -> dict[str, Json]:
    """The generation options of the tensor `llm_parameters`; none without it, or where its text is empty.

    Raises:
        InvalidInput: not one JSON object.
    """
    text = single_text(tensors, "llm_parameters") if "llm_parameters" in tensors else ""
    return json_object(text, "tensor 'llm_parameters'") if text else {}


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
