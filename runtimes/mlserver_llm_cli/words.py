"""All output of the command goes through here, so that no file's content can control the terminal."""

import json
import re
from typing import Any

import click
from rich.markup import escape

from mlserver_chat import ChatError

_BIDI = "\u202a-\u202e\u2066-\u2069"
"""Characters that show a line in another order than it has."""
_LINE_ENDS = "\u2028\u2029"
_CONTROLS = re.compile(f"[\0-\x1f\x7f-\x9f{_LINE_ENDS}{_BIDI}\ud800-\udfff]")
_CONTROLS_BUT_LINES = re.compile(f"[\0-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\ud800-\udfff]")


def counted(number: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: object) -> str:
    """One line of text, with the replacement character in place of control characters and half surrogate pairs."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(text))


def printable_lines(text: object) -> str:
    """The same for a text that may have several lines and tabs."""
    return _CONTROLS_BUT_LINES.sub("\N{REPLACEMENT CHARACTER}", str(text))


def markup(text: object) -> str:
    """Several lines of text for rich, which prints them as they are."""
    return escape(printable_lines(text))


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON whose control characters are escaped. JSON allows them inside texts alone, where `\\u001b` is the same."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _CONTROLS_BUT_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str, err: bool = False) -> None:
    """Print lines, to standard error if `err`."""
    click.echo(printable_lines(text), err=err)


class Group(click.Group):
    """A group of commands in which every expected fault ends as one printable sentence and exit code 1 or 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            sentence = error.format_message()
            if sentence == printable_lines(sentence):
                raise
            kind = click.UsageError if isinstance(error, click.UsageError) else click.ClickException
            raise kind(printable_lines(sentence)) from error
        except ChatError as error:
            raise click.ClickException(printable(error)) from error
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe went away
        except OSError as error:
            where = f"'{error.filename}': " if error.filename else ""
            raise click.ClickException(printable(f"{where}{error.strerror}")) from error
        except UnicodeDecodeError as error:
            raise click.ClickException("the file is not UTF-8 text") from error
