"""What a check finds: one sentence a fault, with file and key."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_LONGEST = 500

Level = Literal["error", "warning"]
"""`error`: the model doesn't load, or not as written. `warning`: it loads, and something will surprise."""


@dataclass(frozen=True)
class Finding:
    """One fault."""

    level: Level
    file: str
    """Path of the file, as reached from the path that is checked."""
    key: str
    """Dotted key in the file; "" for the file as a whole."""
    sentence: str
    """What is wrong and what is expected; never a secret value."""

    def __str__(self) -> str:
        return f"{self.file}: {self.level}: {self.sentence}"


def error(file: Path, key: str, sentence: str) -> Finding:
    """A fault that keeps the model from loading as it is written."""
    return Finding("error", str(file), key, _one_line(sentence))


def warning(file: Path, key: str, sentence: str) -> Finding:
    """A fault that a model loads with."""
    return Finding("warning", str(file), key, _one_line(sentence))


def _one_line(sentence: str) -> str:
    """Names that a file holds may be of any length, with anything in them."""
    line = " ".join(sentence.split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def unknown_key(file: Path, path: str, name: str, known: Iterable[str]) -> Finding:
    """A key that its reader ignores in silence, and the right one that is nearest."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    key = f"{path}.{name}" if path else name
    return error(file, key, f"'{key}' is not a key that MLServer knows, so it is ignored{hint}")
