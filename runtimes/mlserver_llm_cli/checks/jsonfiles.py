"""Reads JSON files more strictly than MLServer does."""

from collections import Counter
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from mlserver_chat import files
from mlserver_chat.errors import reason_of
from mlserver_chat.files import UnreadableFile

from .findings import Finding, error


def read_json(path: Path) -> tuple[Any, list[Finding]]:
    """Return the content of a JSON file, None if it is unreadable, and the faults of the JSON."""
    twice: list[str] = []

    def noting(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        twice.extend(key for key, count in counts.items() if count > 1)
        return dict(pairs)

    try:
        content: Any = files.read_json(path, pairs=noting)
    except UnreadableFile as failure:
        return None, [error(path, "", str(failure))]
    return content, [error(path, key, f"'{key}' appears twice; JSON readers use the last one") for key in twice]


def read_object(path: Path) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the same for a file that must contain one JSON object."""
    content, findings = read_json(path)
    if content is not None and not isinstance(content, dict):
        return None, [*findings, error(path, "", "is not a JSON object; expected {…}")]
    return cast("dict[str, Any] | None", content), findings


def wrong_values(path: Path, failure: ValidationError) -> list[Finding]:
    """Return a finding for each value that MLServer's settings class rejects."""
    found: list[Finding] = []
    for each in failure.errors(include_input=False, include_url=False):
        key = ".".join(str(part) for part in each["loc"])
        found.append(error(path, key, f"'{key}': {reason_of(each)}"))
    return found
