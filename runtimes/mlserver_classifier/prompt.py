"""The prompt that asks an LLM for a route.

Small models are trained on it, such as `models/support-tiny`. Changing a character makes their answers worse.
"""

from collections.abc import Sequence

from mlserver_chat import Message

from .settings import RouteSettings

MAX_MESSAGE_BYTES = 500
"""Most bytes of a message in the transcript, in UTF-8. A longer message keeps its start and its end."""

MAX_TRANSCRIPT_BYTES = 1600
"""Most bytes of the transcript, in UTF-8. Older messages beyond it are left out. A token has at least one byte, so any
conversation fits into a context of 2048 tokens."""

_CUT = " … "


def classification_messages(
    conversation: Sequence[Message], routes: Sequence[RouteSettings], context_messages: int = 5
) -> list[Message]:
    """Build the system message that describes the routes, and the user message with the end of the conversation.

    The transcript ends with the last user message. Each message is one line with its whitespace collapsed, so a message
    can't forge the line of another one.

    Args:
        conversation: the messages, oldest first.
        routes: the routes to describe.
        context_messages: most messages of the user and the assistant in the transcript, at least 1.

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
    transcript = "\n".join(_transcript(_context(conversation, context_messages)))
    return [
        Message.of_text("system", f"Choose the route that fits the last user message.\n{described}"),
        Message.of_text("user", f"{transcript}\n\nRoute:"),
    ]


def _context(conversation: Sequence[Message], count: int) -> list[Message]:
    spoken = [m for m in conversation if m.role == "user" or (m.role == "assistant" and m.text.strip())]
    while spoken and spoken[-1].role != "user":
        spoken.pop()
    return spoken[-count:]


def _described(route: RouteSettings) -> str:
    line = f"{route.name}: {' '.join(route.description.split())}" if route.description else route.name
    examples = "; ".join(" ".join(example.split()) for example in route.examples)
    return f"{line} (for example: {examples})" if examples else line


def _transcript(messages: Sequence[Message]) -> list[str]:
    lines: list[str] = []
    left = MAX_TRANSCRIPT_BYTES
    for message in reversed(messages):
        line = f"{message.role}: {_line(message.text)}"
        left -= len(line.encode("utf-8"))
        if lines and left < 0:
            break
        lines.insert(0, line)
    return lines


def _line(text: str) -> str:
    line = " ".join(text.split())
    encoded = line.encode("utf-8")
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return line
    half = (MAX_MESSAGE_BYTES - len(_CUT.encode("utf-8"))) // 2
    start, end = encoded[:half].decode("utf-8", "ignore"), encoded[-half:].decode("utf-8", "ignore")
    return start.rstrip() + _CUT + end.lstrip()
