"""Reads V2 tensors.

Elements of BYTES arrive as `str` (REST), `bytes` (gRPC and every pipeline) or base64 (`content_type: "base64"`). Shapes
are `[n]`, `[n,1]` or `[1,n]`, and data is a list, nested lists or a bare string. MLServer's StringCodec is not used,
because it turns unknown elements into "" and a bare string into a list of letters.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard, cast

from mlserver.types import Datatype, RequestInput, ResponseOutput

from ..errors import InvalidInput
from .json_text import Json, json_object, kind_of

Tensors = Mapping[str, RequestInput]
"""The tensors of a request by name."""


def read_tensors(inputs: Iterable[RequestInput]) -> dict[str, RequestInput]:
    """Return the tensors of a request by name. A join may deliver the same tensor twice.

    Raises:
        InvalidInput: two tensors have the same name and different data.
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
    """Whether data is a list without inner lists, as it nearly always is. A check without a Python loop."""
    return type(data) is list and _LEAVES.issuperset(map(type, cast("list[Any]", data)))


def flatten(data: Any) -> list[Any]:
    """Return a tensor's elements in row-major order. A bare string or number is one element, and null is none."""
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


def count_elements(data: Any, most: int) -> int:
    """Count a tensor's elements. Counting stops beyond `most`, so the result may then include inner lists."""
    if not _is_list(data):
        return 0 if data is None else 1
    count = len(data)
    if count > most or _is_flat(data):
        return count
    for item in data:
        if count > most:
            break
        if _is_list(item):
            count += count_elements(item, most) - 1
    return count


_BYTES = (Datatype.BYTES.value, Datatype.BYTES)


def is_text(tensor: RequestInput | ResponseOutput) -> bool:
    """Whether a tensor has the datatype BYTES. MLServer's types hold the datatype as text or as `Datatype`."""
    return tensor.datatype in _BYTES


def text_elements(tensor: RequestInput | ResponseOutput) -> list[str]:
    """Return the elements of a text tensor of a request or a response.

    The declared shape may disagree with the number of elements: some vendors' examples send two elements under `[1]`.

    Raises:
        InvalidInput: the datatype is not BYTES, the shape has two dimensions over 1, or an element is not UTF-8 text.
    """
    name = tensor.name
    if not is_text(tensor):
        # gRPC lets any text through as a datatype, and a model that is no runtime of the suite reads it here first.
        datatype = str(getattr(tensor.datatype, "value", tensor.datatype))
        raise InvalidInput(f"tensor '{name}' has datatype {ascii(datatype)[1:-1]:.40}; expected BYTES")
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
    """Decode a list of `str` or of `bytes`, as data nearly always is, in one pass. Returns None for other data, and if
    an element is not UTF-8 text."""
    if type(data) is not list:
        return None
    kinds = set(map(type, cast("list[Any]", data)))
    try:
        if kinds <= _ONLY_BYTES:
            return [element.decode() for element in cast("list[bytes]", data)]
        if kinds <= _ONLY_TEXT:
            # Fails for half of a surrogate pair.
            "".join(cast("list[str]", data)).encode()
            return cast("list[str]", data).copy()
    except UnicodeError:
        pass
    return None


def _text(name: str, index: int, element: object, is_base64: bool) -> str:
    if is_base64 and isinstance(element, str | bytes):
        try:
            element = base64.b64decode(element, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(f"tensor '{name}' element {index} is not base64, as its content_type says") from error
    if isinstance(element, bytes):
        try:
            return element.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"tensor '{name}' element {index} is not UTF-8 text") from error
    if isinstance(element, str):
        try:
            element.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(f"tensor '{name}' element {index} holds half of a surrogate pair") from error
        return element
    raise InvalidInput(f"tensor '{name}' element {index} is {kind_of(element)}; expected text")


def float_elements(tensor: RequestInput | ResponseOutput) -> list[float]:
    """Return the elements of a number tensor of a request or a response.

    Raises:
        InvalidInput: an element is not a number.
    """
    elements = flatten(tensor.data.root)
    for index, element in enumerate(elements):
        if isinstance(element, bool) or not isinstance(element, int | float):
            raise InvalidInput(f"tensor '{tensor.name}' element {index} is {kind_of(element)}; expected a number")
    return [float(element) for element in elements]


def optional_text(tensors: Tensors, name: str) -> list[str] | None:
    """Return the elements of the text tensor `name`, or None if the request lacks it."""
    tensor = tensors.get(name)
    return None if tensor is None else text_elements(tensor)


def required_text(tensors: Tensors, name: str) -> list[str]:
    """Return the elements of the text tensor `name`.

    Raises:
        InvalidInput: the tensor is missing or empty.
    """
    elements = optional_text(tensors, name)
    if elements is None:
        raise InvalidInput(f"tensor '{name}' is missing; expected BYTES [n]")
    if not elements:
        raise InvalidInput(f"tensor '{name}' is empty; expected at least one element")
    return elements


def single_text(tensors: Tensors, name: str) -> str:
    """Return the only element of the text tensor `name`.

    Raises:
        InvalidInput: the tensor is missing, or doesn't have exactly one element.
    """
    elements = required_text(tensors, name)
    if len(elements) > 1:
        raise InvalidInput(f"tensor '{name}' has {len(elements)} elements; expected 1")
    return elements[0]


def value_text(tensor: RequestInput) -> str:
    """Return a tensor of any datatype as the text for a prompt's placeholder, one element a line."""
    if is_text(tensor):
        return "\n".join(text_elements(tensor))
    return "\n".join(json.dumps(element) for element in flatten(tensor.data.root))


def llm_parameters_of(tensors: Tensors) -> dict[str, Json]:
    """Return the generation options in the tensor `llm_parameters`, or no options if it is missing or empty.

    Raises:
        InvalidInput: the tensor is not one JSON object.
    """
    text = single_text(tensors, "llm_parameters") if "llm_parameters" in tensors else ""
    return json_object(text, "tensor 'llm_parameters'") if text else {}
