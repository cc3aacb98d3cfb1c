"""JSON as the suite reads and writes it inside tensors: only values that can be written again."""

import json
import math
from typing import Any, cast

from ..errors import InvalidInput

Json = Any
"""A value that `json` can write."""


def kind_of(value: object) -> str:
    """The name of a JSON value's type, for error sentences."""
    names: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def json_object(text: str, where: str) -> dict[str, Json]:
    """`text` parsed as one JSON object.

    Raises:
        InvalidInput: not JSON, or not an object. `where` names the tensor or key in the sentence.
    """
    try:
        value = loads(text)
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{where} holds half of a surrogate pair; expected text") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is not JSON; expected a JSON object") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is {kind_of(value)} in JSON; expected a JSON object")
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
