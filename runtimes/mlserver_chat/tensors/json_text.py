"""Reads and writes JSON in tensors. Reading accepts only values that can be written again."""

import json
import math
from typing import Any, cast

from ..errors import InvalidInput

Json = Any
"""A value that the module `json` can write."""


def kind_of(value: object) -> str:
    """Return the type of a JSON value, for error sentences."""
    names: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def json_object(text: str, where: str) -> dict[str, Json]:
    """Parse a text as one JSON object.

    Args:
        text: the text.
        where: names the tensor or key in error sentences.

    Raises:
        InvalidInput: the text is not JSON, or not an object.
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
    """Parse JSON.

    Raises:
        ValueError: the text is not JSON, or has a number such as NaN or 1e999.
        UnicodeEncodeError: an escape is half of a surrogate pair, which UTF-8 can't encode.
        RecursionError: the text is nested too deeply.
    """
    value = _DECODER.decode(text)
    if "\\u" in text:
        dumps(value).encode("utf-8")
    return value


_ENCODER = json.JSONEncoder(ensure_ascii=False)


def dumps(value: Json) -> str:
    """Write JSON as in the `history` tensor, with ", " and ": " and without ASCII escapes."""
    return _ENCODER.encode(value)
