"""Reads YAML documents within limits, and remembers the line of every key so that a finding can point at it."""

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from mlserver_chat import SettingsError
from mlserver_chat.files import UnreadableFile, read_text

MAX_DOCUMENTS = 1_000
"""Most YAML documents of a file."""
MAX_DEPTH = 64
"""Deepest nesting of lists and mappings."""
MAX_VALUES = 50_000
"""Most keys and values of a file. An alias counts as often as what it stands for."""

_SURROGATE = re.compile("[\ud800-\udfff]")

Location = tuple[str | int, ...]
"""The keys and list indices that lead to a value, e.g. `("spec", "steps", 0, "name")`."""


def dotted(location: Location) -> str:
    """Write a location as `spec.steps[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


@dataclass(frozen=True)
class Document:
    """One YAML document of a file."""

    path: Path
    content: Mapping[str, Any]
    lines: Mapping[Location, int]

    def position(self, location: Location) -> str:
        """Return file and line of a value, `support-chat.yaml:12`, or the line of the nearest parent that has one."""
        while location not in self.lines and location:
            location = location[:-1]
        return f"{self.path.name}:{self.lines.get(location, 1)}"


def read_documents(path: Path) -> list[Document]:
    """Read the documents of a YAML file. Empty documents are left out.

    Raises:
        SettingsError: the file can't be read, is not YAML or too large, a document is not a mapping, or a mapping has
            a key twice (YAML itself would take the last one).
    """
    try:
        loader = _Loader(read_text(path))
    except UnreadableFile as error:
        raise SettingsError(f"manifest '{path}' {error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"manifest '{path}' can't be read: {_reason(error)}") from error
    try:
        return list(_documents(loader, path))
    except _Refused as error:
        raise SettingsError(f"{path.name}:{error.line}: {error}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path.name}: not YAML: {_reason(error)}") from error
    finally:
        loader.dispose()


def _documents(loader: "_Loader", path: Path) -> Iterator[Document]:
    count = 0
    while loader.check_node():
        count += 1
        if count > MAX_DOCUMENTS:
            raise SettingsError(f"{path.name}: more than {MAX_DOCUMENTS} documents")
        node = cast(yaml.Node, loader.get_node())
        line = node.start_mark.line + 1
        lines: dict[Location, int] = {}
        _note_lines(node, (), lines, path)
        content = _construct(loader, node, f"{path.name}:{line}")
        if content is None:
            continue
        if not isinstance(content, dict):
            raise SettingsError(f"{path.name}:{line}: expected a mapping with 'kind' and 'spec'")
        yield Document(path, cast(dict[str, Any], content), lines)


def _construct(loader: "_Loader", node: yaml.Node, place: str) -> object:
    try:
        return loader.construct_document(node)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML converts scalars unchecked: a date of month 99, a number of 5,000 digits, an explicit `!!bool maybe`.
        raise SettingsError(f"{place}: a date or number in this document can't be read") from error


class _Refused(Exception):
    """YAML that these limits don't allow; `str()` says why."""

    def __init__(self, reason: str, mark: yaml.Mark):
        super().__init__(reason)
        self.line = mark.line + 1


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which counts the values while it builds their tree."""

    def __init__(self, text: str):
        super().__init__(text)
        self._values = 0
        self._depth = 0
        self._sizes: dict[yaml.Node | None, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node and count it, an alias as often as what it stands for.

        Raises:
            _Refused: too many values, nested too deeply, an alias within the node that it names, or half of a
                surrogate pair.
        """
        is_alias = self.check_event(yaml.AliasEvent)
        mark = cast(yaml.Mark, self.peek_event().start_mark)  # type: ignore[union-attr]
        before = self._values
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"nested more than {MAX_DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and node not in self._sizes:
            raise _Refused("an alias stands within the value that it names", mark)
        if isinstance(node, yaml.ScalarNode) and _SURROGATE.search(node.value):
            raise _Refused("a text holds half of a surrogate pair", mark)
        self._values += self._sizes[node] if is_alias else 1
        if self._values > MAX_VALUES:
            raise _Refused(f"more than {MAX_VALUES} keys and values, each alias counted in full", mark)
        self._sizes.setdefault(node, self._values - before)
        return node


def _reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).splitlines()[0]


def _note_lines(node: yaml.Node, location: Location, lines: dict[Location, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise SettingsError(f"{path.name}:{key.start_mark.line + 1}: key '{name}' appears twice")
            seen.add(name)
            lines[(*location, name)] = key.start_mark.line + 1
            _note_lines(value, (*location, name), lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*location, index)] = value.start_mark.line + 1
            _note_lines(value, (*location, index), lines, path)
