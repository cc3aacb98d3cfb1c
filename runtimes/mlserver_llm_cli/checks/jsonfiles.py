"""JSON files, read more strictly than their readers do."""

import json
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from mlserver_chat.errors import reason_of

from .findings import Finding, error


def read_json(path: Path) -> tuple[Any, list[Finding]]:
    """The content of a JSON file (None when it has none), and what is wrong with it as JSON."""
    twice: list[str] = []

    def noting(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice.extend(key for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(pairs)

    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=noting)
    except OSError as failure:
        return None, [error(path, "", f"can't be read: {failure.strerror}")]
    except UnicodeDecodeError:
        return None, [error(path, "", "is not UTF-8 text")]
    except json.JSONDecodeError as failure:
        place = f"line {failure.lineno}, column {failure.colno}"
        return None, [error(path, "", f"is not JSON, so MLServer passes it over: {failure.msg} at {place}")]
    except RecursionError:
        return None, [error(path, "", "is nested too deeply")]
    return content, [error(path, key, f"'{key}' is there twice; JSON readers take the last one") for key in twice]


def read_object(path: Path) -> tuple[dict[str, Any] | None, list[Finding]]:
    """The same for a file that must hold one JSON object."""
    content, findings = read_json(path)
    if content is not None and not isinstance(content, dict):
        return None, [*findings, error(path, "", "is not a JSON object; expected {…}")]
    return cast("dict[str, Any] | None", content), findings


def wrong_values(path: Path, failure: ValidationError) -> list[Finding]:
    """One finding for each value that MLServer's own settings class refuses."""
    found: list[Finding] = []
    for each in failure.errors(include_input=False, include_url=False):
        key = ".".join(str(part) for part in each["loc"])
        found.append(error(path, key, f"'{key}': {reason_of(each)}"))
    return found
