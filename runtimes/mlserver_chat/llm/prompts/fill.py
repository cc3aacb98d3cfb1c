"""Fills a prompt with the tensors of a request."""

from collections.abc import Mapping, Sequence

from ...errors import InvalidInput
from ...messages.codec import find_conversation
from ...messages.types import Message, Part, last_user_text
from ...tensors import Tensors, value_text
from .prompt import Prompt, PromptMessage
from .render import HISTORY, LAST_USER_MESSAGE, MESSAGES, render


def fill(prompt: Prompt, tensors: Tensors) -> list[Message]:
    """Return the messages of `prompt` for the LLM, filled from `tensors`.

    `{history}` expands to the conversation, without the last user turn if the template renders that itself. Only a
    prompt that uses the conversation reads it. A Jinja prompt blocks for up to `MAX_RENDER_SECONDS` per message, so
    fill it in a worker thread.

    Raises:
        InvalidInput: the tensor of a placeholder or the conversation is missing or invalid.
    """
    conversation = _conversation(tensors) if prompt.reads_conversation else []
    values = _values(prompt, tensors, conversation)
    rendered_turn = conversation[-1:] if prompt.renders_last_user_message and _ends_with_user(conversation) else []
    history = conversation[: len(conversation) - len(rendered_turn)]
    messages: list[Message] = []
    for message in prompt.template:
        if message.role == "placeholder":
            messages.extend(history)
        else:
            text = render(message.content, prompt.type, _values_for(message, prompt, values))
            attached = _attachments(rendered_turn) if _renders_turn(message, prompt) else ()
            messages.append(Message(message.role, (Part("text", text), *attached)))
    if prompt.reads_conversation and all(message.role in ("system", "developer") for message in messages):
        raise InvalidInput(
            f"tensor 'history' or the tensors 'role' and 'content' are missing; prompt '{prompt.name}' needs them"
        )
    return messages


def _conversation(tensors: Tensors) -> list[Message]:
    """Return the conversation, which may be empty. Without `role`, `content` and `type` are ordinary values."""
    return find_conversation(tensors if "role" in tensors else {k: v for k, v in tensors.items() if k == "history"})


def _values(prompt: Prompt, tensors: Tensors, conversation: Sequence[Message]) -> dict[str, object]:
    values: dict[str, object] = dict(prompt.tokens)
    for placeholder, field in prompt.fields.items():
        if field in tensors:
            values[placeholder] = value_text(tensors[field])
        elif prompt.type == "plain":
            raise InvalidInput(f"tensor '{field}' is missing; prompt '{prompt.name}' needs it for '{placeholder}'")
    if prompt.renders_last_user_message and not any(message.role == "user" for message in conversation):
        raise InvalidInput(f"the conversation has no message of role 'user'; prompt '{prompt.name}' needs one")
    values[LAST_USER_MESSAGE] = last_user_text(conversation)
    values[HISTORY] = "\n".join(map(_transcript_lines, conversation))
    if prompt.type == "jinja":
        values[MESSAGES] = [{"role": message.role, "content": message.text, "type": "text"} for message in conversation]
    return values


def _values_for(message: PromptMessage, prompt: Prompt, values: Mapping[str, object]) -> Mapping[str, object]:
    """Return the values for one message. Beside a transcript, no value can forge a line of it."""
    if prompt.type == "jinja" or HISTORY not in prompt.names_in(message):
        return values
    return {name: value if name == HISTORY else _one_entry(str(value)) for name, value in values.items()}


def _transcript_lines(message: Message) -> str:
    """Return the entry of one message in a transcript: `role: text`."""
    role = " ".join(message.role.split())
    return f"{role}: {_one_entry(message.text)}"


def _one_entry(text: str) -> str:
    """Indent all lines but the first, so that the text can't forge the line of another role."""
    return "\n  ".join(text.splitlines())


def _ends_with_user(conversation: Sequence[Message]) -> bool:
    return bool(conversation) and conversation[-1].role == "user"


def _renders_turn(message: PromptMessage, prompt: Prompt) -> bool:
    return message.role == "user" and LAST_USER_MESSAGE in prompt.names_in(message)


def _attachments(turn: Sequence[Message]) -> tuple[Part, ...]:
    """Return the images and other parts of the user's turn, which a text template can't render."""
    return tuple(part for message in turn for part in message.parts if part.type != "text")
