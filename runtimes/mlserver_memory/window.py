"""What part of a conversation a step gets to see."""

import json
from collections.abc import Sequence

from mlserver_chat import Message, StoredMessage, Window
from mlserver_chat.stores import SYSTEM_ROLES

from .budget import TokenBudget

_SYSTEM = tuple(f'{{"role": "{role}"' for role in SYSTEM_ROLES)
_RESULT = '{"role": "tool"'
"""How records begin."""
_LONGEST = max(map(len, _SYSTEM))


def shape_window(
    window: Window, size: int, pin_system: bool = True, budget: TokenBudget | None = None
) -> list[StoredMessage]:
    """At most `size` messages within the `budget`, oldest first, that a chat model accepts.

    The newest system message stays when the window slides past it (a window of one is the newest message alone).
    A tool result whose call was cut off is left out: a chat model refuses it.
    """
    messages = list(window.messages)[-size:]
    # A few beginnings stand for many messages: asking each for its role would take most of the time.
    beginnings = {message.record[:_LONGEST] for message in messages}
    pinned = None
    if pin_system and size > 1:
        has_system = any(beginning.startswith(_SYSTEM) for beginning in beginnings)
        pinned = next(m for m in reversed(messages) if m.role in SYSTEM_ROLES) if has_system else window.system
    if budget is not None:
        messages = budget.newest(messages, pinned)
    if pinned is not None and pinned not in messages:
        messages = [pinned, *messages[-(size - 1) :]]
    # Sequences have no gaps, so that a whole conversation of n messages ends at n.
    is_cut = bool(messages) and messages[-1].sequence != len(messages)
    has_result = any(beginning.startswith(_RESULT) for beginning in beginnings)
    return _without_orphans(messages) if is_cut and has_result else messages


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
