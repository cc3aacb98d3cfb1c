"""The template languages: a plain one-pass replacement, and Jinja in an immutable sandbox."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ...errors import InvalidInput

HISTORY = "history"
LAST_USER_MESSAGE = "last_user_message"
MESSAGES = "messages"

TemplateType = Literal["plain", "jinja"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_UNDEFINED = re.compile(r"'(\w+)' is undefined")
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


@lru_cache(maxsize=1024)
def placeholders(template: str, kind: TemplateType) -> frozenset[str]:
    """The names a template uses.

    Raises:
        ValueError: a Jinja template that doesn't parse.
    """
    if kind == "plain":
        return frozenset(_PLACEHOLDER.findall(template))
    try:
        used = meta.find_undeclared_variables(_JINJA.parse(template))
    except TemplateError as error:
        raise ValueError(f"the template is not valid Jinja: {error}") from None
    return frozenset(used) - _JINJA.globals.keys()


def render(template: str, kind: TemplateType, values: Mapping[str, object]) -> str:
    """The template with `values` in place. A value that itself holds `{other}` or `{{ other }}` stays literal.

    Raises:
        InvalidInput: a name without a value, or a Jinja template that fails on these values.
    """
    if kind == "plain":
        return _PLACEHOLDER.sub(lambda match: str(_value(values, match.group(1))), template)
    try:
        return _compiled(template).render(values)
    except UndefinedError as error:
        missing = _UNDEFINED.fullmatch(error.message or "")
        raise _missing(missing.group(1)) if missing else _failed(error) from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise _failed(error) from None


def _value(values: Mapping[str, object], name: str) -> object:
    if name not in values:
        raise _missing(name)
    return values[name]


def _missing(name: str) -> InvalidInput:
    return InvalidInput(f"the prompt's placeholder '{name}' has no value; expected a tensor for it")


def _failed(error: Exception) -> InvalidInput:
    return InvalidInput(f"the prompt's template failed on these values ({type(error).__name__})")


@lru_cache(maxsize=1024)
def _compiled(template: str) -> Template:
    return _JINJA.from_string(template)
