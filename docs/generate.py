"""Fill the settings tables of docs/*.md and write docs/schemas/*.json from the settings classes.

`python docs/generate.py` rewrites them; with `--check` it changes nothing and exits 1 when one has drifted.
A table stands between `<!-- settings: package.module.ClassName -->` and `<!-- /settings -->`.
"""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).resolve().parent
MARKER = re.compile(r"(<!-- settings: (?P<name>[\w.]+) -->\n).*?(<!-- /settings -->)", re.DOTALL)


def settings_class(dotted: str) -> type[BaseModel]:
    """Return the class that a marker names."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def nested_class(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class of a field that contains one object, even an optional one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    classes = [nested_class(argument) for argument in get_args(annotation) if argument is not type(None)]
    return classes[0] if len(classes) == 1 else None


def type_name(annotation: Any) -> str:
    """Return a readable type, without its validators."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return type_name(arguments[0])
    if annotation is SecretStr:
        return "secret"
    if annotation is type(None):
        return "null"
    origin = getattr(annotation, "__origin__", None)
    if isinstance(annotation, type) and not arguments:
        return "object" if issubclass(annotation, BaseModel) else annotation.__name__
    names = [json.dumps(arg) if isinstance(arg, str) else type_name(arg) for arg in arguments]
    if origin in (list, dict, tuple):
        return f"{origin.__name__}[{', '.join(names)}]"
    return " or ".join(dict.fromkeys(name for name in names if name != "null")) or str(annotation)


def default_of(field: FieldInfo) -> str:
    """Return the default as JSON; empty if there is none."""
    default = field.get_default(call_default_factory=True) if field.validate_default is not False else field.default
    if field.is_required() or default is PydanticUndefined:
        return "required"
    if default is None or isinstance(default, BaseModel):
        return ""
    return f"`{json.dumps(default, default=str)}`"


def rows(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield a table row for each field, nested fields under dotted names."""
    for name, field in kind.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{prefix}{name}` | {type_name(field.annotation)} | {default_of(field)} | {meaning} |"
        inner = nested_class(field.annotation)
        if inner is not None and "dict" not in str(field.annotation) and "list" not in str(field.annotation):
            yield from rows(inner, f"{prefix}{name}.")


def table(kind: type[BaseModel]) -> str:
    """Return the whole table of a settings class."""
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *rows(kind)]) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    files: dict[Path, str] = {}
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for match in MARKER.finditer(text):
            kind = settings_class(match["name"])
            schema = json.dumps(kind.model_json_schema(), indent=1, sort_keys=True) + "\n"
            files[DOCS / "schemas" / f"{kind.__name__}.json"] = schema
        files[page] = MARKER.sub(lambda match: match[1] + table(settings_class(match["name"])) + match[3], text)
    return files


def main() -> int:
    """Rewrite, or compare with `--check`."""
    drifted = [
        path for path, text in generated().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv:
        for path in drifted:
            print(f"{path.relative_to(DOCS.parent)} has drifted from the settings classes: run `make docs`")
        return 1 if drifted else 0
    for path in drifted:
        path.parent.mkdir(exist_ok=True)
        path.write_text(generated()[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
