"""Reads small files that may be hostile: settings, prompts and manifests.

Reading has limits on bytes and nesting, and never waits for a pipe or a device. Searching a folder has limits on the
number of entries and on depth, and doesn't follow links in a circle.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

MAX_FILE_BYTES = 2**20
"""Largest settings file, prompt or manifest, in bytes."""
MAX_JSON_DEPTH = 64
"""Deepest nesting of lists and objects in a JSON file."""
MAX_FOLDER_ENTRIES = 100_000
"""Most files and folders below a folder that is searched."""
MAX_FOLDER_DEPTH = 32
"""Deepest folder below a folder that is searched."""

Pairs = Callable[[list[tuple[str, Any]]], dict[str, Any]]
"""Builds a JSON object from its keys and values, in the order of the file."""

_Nested = dict[str, object] | list[object]

_HALF_PAIR = re.compile("[\ud800-\udfff]")


class UnreadableFile(ValueError):
    """A file that can't be used. `str(error)` continues a sentence that begins with the file: "is not UTF-8 text"."""


def read_text(path: Path, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Read a regular file of UTF-8 text. Follows symbolic links.

    Raises:
        UnreadableFile: the file is missing, not a regular file, larger than `max_bytes`, or not UTF-8 text.
    """
    try:
        # Check the type first, because opening a device may have an effect.
        _check_regular(os.stat(path))
        # O_NONBLOCK keeps `open` from waiting for a writer if a pipe has replaced the file since the check.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            _check_regular(os.fstat(descriptor))
            content = file.read(max_bytes + 1) or b""
    except UnreadableFile:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"can't be read: {_reason(error)}") from error
    if len(content) > max_bytes:
        raise UnreadableFile(f"is larger than {max_bytes} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFile("is not UTF-8 text") from error


def _check_regular(state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise UnreadableFile("is not a regular file")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return "its symbolic links lead in a circle" if error.errno == errno.ELOOP else error.strerror or "unknown"
    return "its name is not a valid path"


def read_json(path: Path, max_bytes: int = MAX_FILE_BYTES, pairs: Pairs = dict) -> Any:
    """Read a JSON file.

    Raises:
        UnreadableFile: for the reasons of `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, max_bytes), pairs)


def parse_json(text: str, pairs: Pairs = dict) -> Any:
    """Parse JSON within limits.

    Args:
        text: the JSON.
        pairs: builds each object. Default: a dict with the last of equal keys.

    Raises:
        UnreadableFile: the text is not JSON, is nested deeper than `MAX_JSON_DEPTH`, or contains a number of too many
            digits or half of a surrogate pair, which UTF-8 can't encode.
    """
    try:
        content: Any = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UnreadableFile(f"is not JSON: {error.msg} at {place}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise UnreadableFile("contains a number of too many digits") from error
    _check_values(content)
    return content


def _check_values(content: object) -> None:
    level = [content]
    for depth in range(MAX_JSON_DEPTH + 1):
        if any(isinstance(value, str) and _HALF_PAIR.search(value) for value in level):
            raise UnreadableFile("holds half of a surrogate pair")
        nested = cast(list[_Nested], [value for value in level if isinstance(value, dict | list)])
        if not nested:
            return
        if depth == MAX_JSON_DEPTH:
            raise _too_deep()
        level = [inner for value in nested for inner in _inside(value)]


def _inside(value: _Nested) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    else:
        yield from value


def _too_deep() -> UnreadableFile:
    return UnreadableFile(f"is nested more than {MAX_JSON_DEPTH} levels deep")


@dataclass
class FolderFiles:
    """The files below a folder, and the folders that weren't searched."""

    files: list[Path] = field(default_factory=list[Path])
    """All entries but folders, sorted."""
    left_out: dict[Path, str] = field(default_factory=dict[Path, str])
    """Reason for each folder that wasn't searched. It continues a sentence, e.g. "can't be read: Permission denied"."""

    def named(self, *patterns: str) -> list[Path]:
        """Return the files whose name matches one of these shell patterns."""
        return [path for path in self.files if any(path.match(pattern) for pattern in patterns)]


def find_files(folder: Path) -> FolderFiles:
    """Find all files below a folder as MLServer does: at any depth, through links, without hidden ones.

    The search stops at `MAX_FOLDER_ENTRIES`. The result then has the files found so far, and names the folder itself
    among the folders left out.
    """
    found = FolderFiles()
    left = MAX_FOLDER_ENTRIES
    # Each folder with the device and inode numbers of all folders above it.
    pending: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while pending:
        inner, above = pending.pop()
        try:
            state = os.stat(inner)
            if (state.st_dev, state.st_ino) in above:
                found.left_out[inner] = "links to a folder that contains it; MLServer would follow the link in a circle"
                continue
            if len(above) > MAX_FOLDER_DEPTH:
                found.left_out[inner] = f"lies more than {MAX_FOLDER_DEPTH} folders deep"
                continue
            with os.scandir(inner) as scan:
                entries = [entry for entry in islice(scan, left + 1) if not entry.name.startswith(".")]
        except (OSError, ValueError) as error:
            found.left_out[inner] = f"can't be read: {_reason(error)}"
            continue
        left -= len(entries)
        if left < 0:
            found.left_out[folder] = f"contains more than {MAX_FOLDER_ENTRIES} files and folders"
            break
        here = above | {(state.st_dev, state.st_ino)}
        for entry in entries:
            if _is_folder(entry):
                pending.append((inner / entry.name, here))
            else:
                found.files.append(inner / entry.name)
    found.files.sort()
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
