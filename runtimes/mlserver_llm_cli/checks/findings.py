"""Findings of a check: one sentence for each fault, with file and key."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_LONGEST = 500

Level = Literal["error", "warning"]
"""`error`: the model doesn't load, or not as written. `warning`: it loads, but may not work as intended."""


@dataclass(frozen=True)
class Finding:
    """One fault."""

    level: Level
    file: str
    """Path of the file, beginning with the checked path."""
    key: str
    """Dotted key in the file; "" for the whole file."""
    sentence: str
    """The fault, and the expected value. Never contains a secret."""

    def __str__(self) -> str:
        return f"{self.file}: {self.level}: {self.sentence}"


def error(file: Path, key: str, sentence: str) -> Finding:
    """Return a finding about a model that doesn't load as written."""
    return Finding("error", str(file), key, _one_line(sentence))


def warning(file: Path, key: str, sentence: str) -> Finding:
    """Return a finding about a model that loads, but may not work as intended."""
    return Finding("warning", str(file), key, _one_line(sentence))


def _one_line(sentence: str) -> str:
    """Shorten a sentence, since it may quote any text of a file."""
    line = " ".join(sentence.split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def unknown_key(file: Path, path: str, name: str, known: Iterable[str]) -> Finding:
    """Return a finding about a key that MLServer ignores, with the closest known key."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    key = f"{path}.{name}" if path else name
    return error(file, key, f"MLServer doesn't know the key '{key}' and ignores it{hint}")
