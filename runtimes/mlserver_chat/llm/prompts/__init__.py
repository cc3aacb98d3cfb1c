"""Prompts as files: what one is (`prompt.py`), where it comes from (`settings.py`), which one a request gets
(`catalog.py`), how it is filled in (`fill.py`), and the template languages (`render.py`)."""

from .catalog import PromptCatalog
from .fill import fill
from .prompt import LegendEntry, Prompt, PromptMessage
from .settings import PromptOptions, PromptSource, PromptUtils, TemplateOptions

__all__ = [
    "LegendEntry",
    "Prompt",
    "PromptCatalog",
    "PromptMessage",
    "PromptOptions",
    "PromptSource",
    "PromptUtils",
    "TemplateOptions",
    "fill",
]
