"""What the specs share: messages, keys, and what a window shows."""

import uuid
from collections.abc import Sequence

from mlserver_chat import AppendKey, MemoryStore, Message, StoredMessage, Window
from mlserver_chat.requests.identity import hashed

from ..window import shape_window


def fresh_id() -> str:
    """A conversation that nobody has."""
    return str(uuid.uuid4())


def user(text: str) -> Message:
    """A user message."""
    return Message.of_text("user", text)


def system(text: str) -> Message:
    """A system message."""
    return Message.of_text("system", text)


def key(memory_id: str, messages: Sequence[Message], identity: str | None = None) -> AppendKey:
    """The key of an append; by default of a request like no other."""
    content = hashed("\n".join(message.to_history() for message in messages))
    return AppendKey(memory_id, identity or uuid.uuid4().hex, "spec", content)


async def say(
    store: MemoryStore, memory_id: str, *messages: Message, size: int = 10, identity: str | None = None
) -> Window:
    """Append."""
    return await store.append(key(memory_id, messages, identity), messages, size)


def texts(window: Window | Sequence[StoredMessage], size: int = 10) -> list[str]:
    """The texts of messages, for a window those that a step would see."""
    messages = shape_window(window, size) if isinstance(window, Window) else window
    return [stored.message.text for stored in messages]
