"""Prompts as files.

- `prompt.py`: the format of a prompt.
- `settings.py`: the settings that name prompts.
- `catalog.py`: loads the versions of a prompt and selects one for a request.
- `fill.py`: fills a prompt with the tensors of a request.
- `render.py`: the template languages. `jinja_renderer.py` and `jinja_process.py` bound the work of Jinja templates.
"""

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
