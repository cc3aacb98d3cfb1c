"""Templates to text: a plain one-pass replacement, or Jinja in an immutable sandbox."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import InvalidInput

HISTORY = "history"
LAST_USER_MESSAGE = "last_user_message"

TemplateType = Literal["plain", "jinja"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


def placeholders(template: str, kind: TemplateType) -> set[str]:
    """The names a template needs.

    Raises:
        ValueError: a Jinja template that doesn't parse.
    """
    if kind == "plain":
        return set(_PLACEHOLDER.findall(template))
    try:
        return set(meta.find_undeclared_variables(_JINJA.parse(template)))
    except TemplateError as error:
        raise ValueError(f"the template is not valid Jinja: {error}") from None


def render(template: str, kind: TemplateType, values: Mapping[str, Any]) -> str:
    """The template with `values` in place. A value that itself holds `{other}` stays literal.

    Raises:
        InvalidInput: a Jinja template that fails on these values.
    """
    if kind == "plain":
        return _PLACEHOLDER.sub(lambda match: str(values[match.group(1)]), template)
    try:
        return _compiled(template).render(values)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise InvalidInput(f"the prompt's template failed on these values ({type(error).__name__})") from None


@lru_cache(maxsize=256)
def _compiled(template: str) -> Any:
    return _JINJA.from_string(template)
