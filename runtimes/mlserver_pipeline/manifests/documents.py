"""YAML documents that remember the line of every key, so that a finding can point at it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from mlserver_chat import SettingsError

Location = tuple[str | int, ...]
"""The keys and list indices that lead to a value, e.g. `("spec", "steps", 0, "name")`."""


def dotted(location: Location) -> str:
    """`spec.steps[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


@dataclass(frozen=True)
class Document:
    """One YAML document of a file."""

    path: Path
    content: Mapping[str, Any]
    lines: Mapping[Location, int]

    def place(self, location: Location) -> str:
        """`support-chat.yaml:12`: the file, and the line of the value or of what holds it."""
        while location not in self.lines and location:
            location = location[:-1]
        return f"{self.path.name}:{self.lines.get(location, 1)}"


def read_documents(path: Path) -> list[Document]:
    """The documents of a YAML file.

    Raises:
        SettingsError: unreadable, not YAML, not a mapping, or a key that is there twice (YAML would take the last).
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"manifest '{path}' can't be read: {_why(error)}") from None
    documents: list[Document] = []
    try:
        while loader.check_node():
            node = cast(yaml.Node, loader.get_node())
            lines: dict[Location, int] = {}
            _note_lines(node, (), lines, path)
            content = loader.construct_document(node)
            if content is None:
                continue
            if not isinstance(content, dict):
                raise SettingsError(
                    f"{path.name}:{node.start_mark.line + 1}: expected a mapping with 'kind' and 'spec'"
                )
            documents.append(Document(path, cast(dict[str, Any], content), lines))
    except yaml.YAMLError as error:
        raise SettingsError(f"{path.name}: not YAML: {_why(error)}") from None
    except RecursionError:
        raise SettingsError(f"{path.name}: nested too deeply") from None
    finally:
        loader.dispose()
    return documents


def _why(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, OSError):
        return error.strerror or "it can't be opened"
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error).splitlines()[0]


def _note_lines(node: yaml.Node, location: Location, lines: dict[Location, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise SettingsError(f"{path.name}:{key.start_mark.line + 1}: key '{name}' is there twice")
            seen.add(name)
            lines[(*location, name)] = key.start_mark.line + 1
            _note_lines(value, (*location, name), lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*location, index)] = value.start_mark.line + 1
            _note_lines(value, (*location, index), lines, path)
