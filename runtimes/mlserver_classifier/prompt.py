"""The prompt that asks an LLM for a route.

A small model can be trained on it, so its text is a contract: `models/support-tiny` was trained on exactly this.
"""

from collections.abc import Sequence
from typing import Protocol

from mlserver_chat import Message

MAX_CHARACTERS = 500
"""Longest message in the transcript; of a longer one the start and the end are kept."""

_CUT = " … "


class RouteDescription(Protocol):
    """What the prompt says about a route."""

    @property
    def name(self) -> str:
        """The answer that stands for the route."""
        ...

    @property
    def description(self) -> str:
        """When the route fits."""
        ...

    @property
    def examples(self) -> Sequence[str]:
        """User messages that take the route."""
        ...


def classification_messages(
    conversation: Sequence[Message], routes: Sequence[RouteDescription], context_messages: int = 5
) -> list[Message]:
    """The system message that describes the routes, and the user message with the end of the conversation.

    The transcript holds the last `context_messages` (at least 1) messages of the user and the assistant, up to the
    last user message, each on one line: a message can't forge another one's line, since its whitespace is collapsed.

    ```
    system: Choose the route that fits the last user message.
            status: asks for the status of an issue, ticket or case
            support: everything else (for example: my screen is black; how do I print?)
    user:   user: my printer is jammed
            assistant: Open the rear cover and pull the paper out.
            user: what about that ticket?

            Route:
    ```
    """
    described = "\n".join(_described(route) for route in routes)
    transcript = "\n".join(f"{m.role}: {_line(m.text)}" for m in _context(conversation, context_messages))
    return [
        Message.of_text("system", f"Choose the route that fits the last user message.\n{described}"),
        Message.of_text("user", f"{transcript}\n\nRoute:"),
    ]


def _context(conversation: Sequence[Message], count: int) -> list[Message]:
    spoken = [m for m in conversation if m.role == "user" or (m.role == "assistant" and m.text.strip())]
    while spoken and spoken[-1].role != "user":
        spoken.pop()
    return spoken[-count:]


def _described(route: RouteDescription) -> str:
    line = f"{route.name}: {' '.join(route.description.split())}" if route.description else route.name
    examples = "; ".join(" ".join(example.split()) for example in route.examples)
    return f"{line} (for example: {examples})" if examples else line


def _line(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= MAX_CHARACTERS:
        return line
    half = (MAX_CHARACTERS - len(_CUT)) // 2
    return line[:half].rstrip() + _CUT + line[-half:].lstrip()
