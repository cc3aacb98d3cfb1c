"""What part of a conversation a step gets to see."""

import json
from collections.abc import Sequence

from mlserver_chat import Message, StoredMessage, Window
from mlserver_chat.stores import SYSTEM_ROLES

from .budget import TokenBudget


def shape_window(
    window: Window, size: int, pin_system: bool = True, budget: TokenBudget | None = None
) -> list[StoredMessage]:
    """At most `size` messages within the `budget`, oldest first, that a chat model accepts.

    The newest system message stays when the window slides past it (a window of one is the newest message alone).
    A tool result whose call was cut off is left out: a chat model refuses it.
    """
    messages = list(window.messages)[-size:]
    roles = [message.role for message in messages]
    newest = max((n for n, role in enumerate(roles) if role in SYSTEM_ROLES), default=None)
    system = window.system if newest is None else messages[newest]
    pinned = system if pin_system and size > 1 else None
    if budget is not None:
        messages = budget.newest(messages, pinned)
    if pinned is not None and pinned not in messages:
        messages = [pinned, *messages[-(size - 1) :]]
    # Sequences have no gaps, so that a whole conversation of n messages ends at n.
    is_cut = bool(messages) and messages[-1].sequence != len(messages)
    return _without_orphans(messages) if is_cut and "tool" in roles else messages


def _without_orphans(messages: Sequence[StoredMessage]) -> list[StoredMessage]:
    kept: list[StoredMessage] = []
    calls: set[str] = set()
    for stored in messages:
        message = stored.message
        if message.role == "tool" and not _has_call(message, calls, kept):
            continue
        # An id that isn't text is nobody's; it must not keep the conversation from being read.
        calls.update(str(json.loads(call).get("id")) for call in message.tool_calls)
        kept.append(stored)
    return kept


def _has_call(result: Message, calls: set[str], before: Sequence[StoredMessage]) -> bool:
    """Whether the call is in the window; without an id, whether any message could hold it."""
    if result.tool_call_id:
        return result.tool_call_id in calls
    return any(stored.role == "assistant" for stored in before)
