"""Checks prompt files as an LLM step loads them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from mlserver_chat import PromptSettings, SettingsError
from mlserver_chat.files import UnreadableFile, parse_json, read_text
from mlserver_chat.llm.prompts import PromptCatalog, PromptOptions

from .findings import Finding, error


def check_prompt_file(path: Path) -> list[Finding]:
    """Return the first fault of a prompt file."""
    try:
        PromptCatalog.of_settings(path.name, None, PromptOptions(), path.parent)
    except SettingsError as failure:
        return [error(path, "", str(failure).removeprefix(f"prompt file '{path.name}'").lstrip(": "))]
    return []


def prompt_files(config: PromptSettings, folder: Path) -> list[Path]:
    """Return the prompt files that the settings of a step name."""
    sources = config.prompt if isinstance(config.prompt, list) else [config.prompt]
    return [Path(os.path.normpath(folder / source)) for source in sources if isinstance(source, str)]


def check_catalog(path: Path, config: PromptSettings, folder: Path) -> Iterator[Finding]:
    """Check the prompts of a step together: versions, pins, arms, and prompts inside the settings."""
    try:
        config.catalog(folder)
    except SettingsError as failure:
        yield error(path, "parameters.extra.prompt", str(failure))


def is_prompt(path: Path) -> bool:
    """Return whether a JSON file looks like a prompt or a list of prompts."""
    try:
        text = read_text(path)
        content: Any = parse_json(text) if '"template"' in text else None  # don't parse large files such as a tokenizer
    except UnreadableFile:
        return False
    items = cast(list[Any], content) if isinstance(content, list) else [content]
    return bool(items) and all(isinstance(item, Mapping) and "template" in item and "name" in item for item in items)
