"""Template languages: plain replacement, and Jinja in an immutable sandbox with limits."""

import atexit
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from jinja2 import TemplateError, meta

from .jinja_process import ENVIRONMENT
from .jinja_renderer import JinjaRenderer, missing_value

HISTORY = "history"
LAST_USER_MESSAGE = "last_user_message"
MESSAGES = "messages"

TemplateType = Literal["plain", "jinja"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_RENDERER = JinjaRenderer()
"""Shared by all prompts of the process."""
atexit.register(_RENDERER.close)


@lru_cache(maxsize=1024)
def placeholders(template: str, kind: TemplateType) -> frozenset[str]:
    """Return the names that a template uses.

    Raises:
        ValueError: a Jinja template that doesn't parse.
    """
    if kind == "plain":
        return frozenset(_PLACEHOLDER.findall(template))
    try:
        used = meta.find_undeclared_variables(ENVIRONMENT.parse(template))
    except TemplateError as error:
        raise ValueError(f"the template is not valid Jinja: {error}") from error
    except RecursionError as error:
        raise ValueError("the template is not valid Jinja: it is nested too deeply") from error
    return frozenset(used) - ENVIRONMENT.globals.keys()


def render(template: str, kind: TemplateType, values: Mapping[str, object]) -> str:
    """Return the template with `values` inserted. A value that contains `{other}` or `{{ other }}` stays literal.

    A Jinja template blocks: render it in a worker thread.

    Raises:
        InvalidInput: a name without a value, or a Jinja template that fails or exceeds a limit on these values.
    """
    if kind == "jinja":
        return _RENDERER.render(template, values)
    return _PLACEHOLDER.sub(lambda match: str(_value(values, match.group(1))), template)


def _value(values: Mapping[str, object], name: str) -> object:
    if name not in values:
        raise missing_value(name)
    return values[name]
