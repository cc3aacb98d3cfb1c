"""Renders Jinja templates in a separate process, which can be stopped.

Template authors are trusted, the values of requests are not. A value may decide how often a loop runs or how long a
text grows, and no thread can be interrupted inside such an operation. So `jinja_renderer` starts this file as a
program with a memory limit, and kills it at the time limit. It reads one JSON request a line and answers one JSON line.

The file imports Jinja alone, so that the process starts in a tenth of a second.
"""

import json
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, TextIO

from jinja2 import StrictUndefined, Template, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_MEMORY = 512 * 2**20
"""Address space of the process, in bytes."""

ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
"""Templates can neither reach Python's internals nor change a value."""


@lru_cache(maxsize=1024)
def _compiled(template: str) -> Template:
    return ENVIRONMENT.from_string(template)


def _rendered(template: str, values: Mapping[str, Any], most: int) -> dict[str, str]:
    """Return the answer to one request: `text`, or the reason as `undefined` or `failed`."""
    try:
        text = _compiled(template).render(values)
    except UndefinedError as error:
        return {"undefined": error.message or ""}
    except Exception as error:
        return {"failed": type(error).__name__}
    if len(text) > most:
        return {"failed": f"{len(text)} characters"}
    return {"text": text}


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until the input ends."""
    for line in requests:
        request = json.loads(line)
        answer = _rendered(request["template"], request["values"], request["max_characters"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    with suppress(ValueError, OSError):  # macOS refuses this limit
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    serve(sys.stdin, sys.stdout)
