"""Prompts as files: what one is (`prompt.py`), how it is filled in (`render.py`), which one is used (`catalog.py`)."""

from .catalog import PromptCatalog, PromptOptions, PromptUtils
from .prompt import LegendEntry, Prompt, PromptMessage

__all__ = ["LegendEntry", "Prompt", "PromptCatalog", "PromptMessage", "PromptOptions", "PromptUtils"]
