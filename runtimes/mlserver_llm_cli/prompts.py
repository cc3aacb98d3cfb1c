"""`mlserver-llm prompts`: shows prompts and renders their messages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

import click
from rich.console import Console
from rich.table import Table

from mlserver_chat import Message, encode_history
from mlserver_chat.files import MAX_FILE_BYTES, find_files, parse_json
from mlserver_chat.llm.prompts import Prompt, PromptCatalog, PromptOptions, fill
from mlserver_chat.messages.types import as_messages
from mlserver_chat.tensors import as_input, text_input

from .checks.prompts import is_prompt
from .words import Group, as_json, markup, printable, say


@click.group(cls=Group)
def prompts() -> None:
    """Show and render prompt files."""


@prompts.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--llm", default="", help="Name of the LLM; adds the prompt hash that its answers carry.")
def show(paths: tuple[Path, ...], llm: str) -> None:
    """Show the messages of prompts and the tensor behind each placeholder.

    PATHS are prompt files or folders that contain some.
    """
    console = Console()
    for path in _prompt_files(paths):
        for prompt in _catalog(path, None).versions:
            identity = f" · {prompt.hash(llm)}" if llm else ""
            title = f"[bold]{markup(prompt.name)}[/] version {markup(prompt.version)}{identity} · {markup(path)}"
            console.print(title, highlight=False)
            console.print(_messages_table(prompt))
            if prompt.fields:
                console.print(_fields_table(prompt))
            if prompt.invocation_config:
                console.print("options: " + markup(as_json(prompt.invocation_config)), highlight=False)
            console.print()


@prompts.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--version", help="Version to render; default: the last one in the file.")
@click.option("--set", "values", multiple=True, metavar="TENSOR=VALUE", help="Value of a tensor; repeatable.")
@click.option("--messages", type=click.File(encoding="utf-8"), help='Conversation, a JSON list of {"role", "content"}.')
def render(path: Path, version: str | None, values: tuple[str, ...], messages: TextIO | None) -> None:
    """Print the messages that the LLM would receive, as a JSON list in OpenAI's format."""
    inputs = [text_input(name, [value]) for name, value in map(_split, values)]
    if messages is not None:
        inputs.append(as_input(encode_history(_conversation(messages))))
    prompt = _catalog(path, version).select()
    filled = fill(prompt, {tensor.name: tensor for tensor in inputs})
    say(as_json([message.to_openai() for message in filled], indent=2))


def _prompt_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    found = [path for path in paths if not path.is_dir()]
    for folder in (path for path in paths if path.is_dir()):
        searched = find_files(folder)
        found += [file for file in searched.named("*.json") if is_prompt(file)]
        for path, sentence in searched.left_out.items():
            say(f"{printable(path)} {sentence}", err=True)
    if not found:
        raise click.ClickException("no prompt file found")
    yield from found


def _catalog(path: Path, version: str | None) -> PromptCatalog:
    catalog = PromptCatalog.of_settings(path.name, None, PromptOptions(version=version), path.parent)
    assert catalog is not None
    return catalog


def _messages_table(prompt: Prompt) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for message in prompt.template:
        table.add_row(markup(message.role), markup(message.content))
    return table


def _fields_table(prompt: Prompt) -> Table:
    table = Table("placeholder", "tensor", "meaning", box=None, padding=(0, 2))
    for placeholder, field in prompt.fields.items():
        entry = prompt.legend.get(placeholder)
        table.add_row(placeholder, markup(field), markup(entry.description) if entry else "")
    return table


def _split(value: str) -> tuple[str, str]:
    name, equals, text = value.partition("=")
    if not equals:
        raise click.BadParameter(f"'{value}' is not TENSOR=VALUE", param_hint="--set")
    return name, text


def _conversation(file: TextIO) -> list[Message]:
    text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise click.BadParameter(f"expected at most {MAX_FILE_BYTES} characters", param_hint="--messages")
    try:
        records = parse_json(text)
        if isinstance(records, list):
            return as_messages(cast(list[dict[str, Any]], records))
    except (ValueError, TypeError, KeyError):
        pass
    raise click.BadParameter('expected a JSON list of {"role", "content"}', param_hint="--messages")
