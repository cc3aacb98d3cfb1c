"""What part of a conversation a step gets to see, for any conversation."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver_chat import Message, Part, StoredMessage, Window
from mlserver_memory.budget import TokenBudget
from mlserver_memory.window import shape_window

CALL = '{{"id": "{}", "type": "function", "function": {{"name": "f", "arguments": "{{}}"}}}}'


def stored(messages: Sequence[Message]) -> list[StoredMessage]:
    return [StoredMessage(n, message.to_history(), 0.0) for n, message in enumerate(messages, 1)]


def window(messages: Sequence[Message], size: int) -> Window:
    """What a store returns."""
    everything = stored(messages)
    system = next((message for message in reversed(everything) if message.role == "system"), None)
    newest = everything[-size:]
    return Window(newest, system if system not in newest else None)


def call(*ids: str) -> Message:
    return Message("assistant", (), tuple(CALL.format(each) for each in ids))


def result(identity: str | None) -> Message:
    return Message("tool", (Part("text", "42"),), (), identity)


def user(text: str = "hi") -> Message:
    return Message.of_text("user", text)


SYSTEM = Message.of_text("system", "be kind")


@pytest.mark.parametrize("role", ["user", "", 'a "b"', "back\\slash", "ünï 🙂", "line\n"])
def test_the_role_of_a_record_is_that_of_its_message(role: str) -> None:
    (message,) = stored([Message.of_text(role, '"role": "system"')])
    assert message.role == message.message.role == role


def roles(shown: Sequence[StoredMessage]) -> list[str]:
    return [message.role for message in shown]


def test_the_system_message_stays_and_counts() -> None:
    conversation = [SYSTEM, *[user(str(n)) for n in range(10)]]
    shown = shape_window(window(conversation, 4), 4)
    assert [message.message.text for message in shown] == ["be kind", "7", "8", "9"]
    shown = shape_window(window(conversation, 4), 4, pin_system=False)
    assert [message.message.text for message in shown] == ["6", "7", "8", "9"]
    assert roles(shape_window(window(conversation, 1), 1)) == ["user"]


def test_a_result_whose_call_was_cut_off_goes_too() -> None:
    conversation = [user(), call("a", "b"), result("a"), result("b"), user(), user()]
    assert roles(shape_window(window(conversation, 5), 5)) == ["assistant", "tool", "tool", "user", "user"]
    assert roles(shape_window(window(conversation, 4), 4)) == ["user", "user"]
    assert roles(shape_window(window(conversation, 3), 3)) == ["user", "user"]


def test_a_late_result_goes_with_its_call_and_others_stay() -> None:
    conversation = [call("a"), user(), call("b"), result("b"), result("a"), user()]
    assert roles(shape_window(window(conversation, 5), 5)) == ["user", "assistant", "tool", "user"]


def test_results_stored_without_ids_do_not_begin_a_window() -> None:
    conversation = [user(), Message.of_text("assistant", ""), result(None), user()]
    assert roles(shape_window(window(conversation, 2), 2)) == ["user"]
    assert roles(shape_window(window(conversation, 3), 3)) == ["assistant", "tool", "user"]


def test_a_call_with_a_strange_id_does_not_break_the_window() -> None:
    strange = Message("assistant", (), ('{"id": ["x"], "type": "function"}', '{"id": null}'))
    conversation = [user(), strange, result("a"), user()]
    assert roles(shape_window(window(conversation, 3), 3)) == ["assistant", "user"]


def test_a_conversation_that_fits_is_shown_as_it_was_stored() -> None:
    conversation = [result("never called"), user()]
    assert roles(shape_window(window(conversation, 2), 2)) == ["tool", "user"]


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Whole turns: system, user, plain answers, calls with all their results."""
    messages: list[Message] = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from(["system", "user", "plain", "call"]), max_size=12))):
        if kind == "system":
            messages.append(Message.of_text("system", str(number)))
        elif kind == "user":
            messages.append(user(str(number)))
        elif kind == "plain":
            messages.append(Message.of_text("assistant", str(number)))
        else:
            ids = [f"{number}-{n}" for n in range(draw(st.integers(1, 3)))]
            messages += [call(*ids), *map(result, draw(st.permutations(ids)))]
    return messages


def accepted(conversation: list[Message], shown: Sequence[StoredMessage], size: int) -> bool:
    """Whether it is one that a chat model takes: in order, and no tool result without its call."""
    sequences = [message.sequence for message in shown]
    calls: set[str] = set()
    for message in (each.message for each in shown):
        calls.update(each.split('"')[3] for each in message.tool_calls)
        if message.role == "tool" and message.tool_call_id not in calls:
            return False
    ends = not conversation or conversation[-1].role == "tool" or shown[-1].message == conversation[-1]
    return len(shown) <= size and sequences == sorted(set(sequences)) and ends


@given(conversations(), st.integers(1, 12))
def test_every_window_is_one_that_a_chat_model_accepts(conversation: list[Message], size: int) -> None:
    shown = shape_window(window(conversation, size), size)
    assert accepted(conversation, shown, size)
    systems = [message.sequence for message in stored(conversation) if message.role == "system"]
    if systems and size > 1:
        assert systems[-1] in [message.sequence for message in shown]


@given(conversations(), st.integers(1, 12), st.integers(1, 400))
def test_every_window_fits_its_tokens_and_is_no_shorter_than_it_has_to_be(
    conversation: list[Message], size: int, max_tokens: int
) -> None:
    def tokens(messages: Sequence[StoredMessage]) -> int:
        texts = [[*(part.value for part in each.message.parts), *each.message.tool_calls] for each in messages]
        return sum(len(text) for each in texts for text in each)

    whole = shape_window(window(conversation, size), size)
    shown = shape_window(window(conversation, size), size, budget=TokenBudget(max_tokens, len))
    assert accepted(conversation, shown, size)
    assert tokens(shown) <= max_tokens or len([each for each in shown if each.role != "system"]) <= 1
    if tokens(whole) <= max_tokens and "tool" not in roles(whole):
        assert shown == whole
