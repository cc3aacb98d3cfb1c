"""The model reads the newest turns that fit its context, with roles in an order that its template accepts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlserver_chat import InvalidInput, Message
from mlserver_llm_local.conversation import count_turns, without_oldest
from mlserver_llm_local.settings import TransformersSettings
from mlserver_llm_local.transformers_backend import TransformersBackend

GREEDY = {"max_tokens": 8, "temperature": 0}
STRICT = """
{%- for message in messages if message.role != 'system' %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- endfor %}
{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
SYSTEM = Message.of_text("system", "Be brief.")


def user(text: str = "hello") -> Message:
    return Message.of_text("user", text)


def assistant(text: str = "hi") -> Message:
    return Message.of_text("assistant", text)


@pytest.fixture
async def backend(tiny_model: Path):
    made = TransformersBackend(TransformersSettings(model=".", device="cpu"), tiny_model, "tiny")
    yield made
    await made.aclose()


def test_a_turn_begins_with_a_message_of_the_user() -> None:
    call = Message("assistant", (), ('{"id": "c"}',))
    tool = Message("tool", (), (), "c")
    conversation = [assistant("0"), SYSTEM, user("1"), assistant("2"), user("3"), call, tool]
    assert count_turns(conversation) == 3
    assert without_oldest(conversation, 0) == conversation
    assert without_oldest(conversation, 1) == conversation[1:]
    assert without_oldest(conversation, 2) == [SYSTEM, *conversation[4:]]


@pytest.mark.parametrize("turns", [1, 2, 40, 1000])
async def test_the_oldest_turns_are_left_out_when_the_context_is_full(backend, turns) -> None:
    old = [message for n in range(turns) for message in (user(f"question {n}: zqzqzq"), assistant(f"answer {n}"))]
    newest = user("and now?")
    whole = (await backend.complete([SYSTEM, *old, newest], GREEDY)).data
    assert 0 < whole["usage"]["prompt_tokens"] <= 512 - 8
    kept = [SYSTEM, newest]
    for start in range(2 * turns - 2, -1, -2):
        longer = [SYSTEM, *old[start:], newest]
        if len(backend._model._format.prompt(longer, [])) > 512 - 8:
            break
        kept = longer
    explicit = (await backend.complete(kept, GREEDY)).data
    assert (whole["usage"], whole["choices"]) == (explicit["usage"], explicit["choices"])
    assert (turns > 2) == (len(kept) < len(old) + 2)
    scores = await backend.score([SYSTEM, *old, newest], ["yes", "no"])
    assert len(scores) == 2 and all(score < 0 for score in scores)


async def test_a_long_earlier_message_is_left_out_before_tokenizing(backend) -> None:
    endless = user("b" * 60_000)
    assert (await backend.complete([endless, assistant(), user()], GREEDY)).text == (
        await backend.complete([user()], GREEDY)
    ).text


async def test_at_most_a_quarter_of_the_context_is_reserved_for_the_answer(backend) -> None:
    old = [message for _ in range(9) for message in (user("zqzqzqzqzqzqzqzq"), assistant("zqzqzqzqzqzqzqzq"))]
    for most in (400, -1):
        usage = (await backend.complete([*old, user()], {"max_tokens": most, "temperature": 0})).data["usage"]
        assert 512 * 5 / 8 < usage["prompt_tokens"] <= 512 * 3 / 4


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, make_tiny: Callable[..., Path]):
    folder = make_tiny(tmp_path_factory.mktemp("strict"), STRICT)
    return TransformersBackend(TransformersSettings(model=".", device="cpu"), folder, "strict")


@pytest.mark.parametrize(
    ("conversation", "equal"),
    [
        ([user("a"), user("b")], [user("a\nb")]),
        ([user("a"), assistant("x"), assistant("y"), user("b")], [user("a"), assistant("x\ny"), user("b")]),
        ([assistant("x"), user("a")], [user("a")]),
        ([SYSTEM, assistant("x"), user("a"), user("b")], [SYSTEM, user("a\nb")]),
    ],
    ids=["an unanswered turn", "two answers", "a window that begins with an answer", "both behind a system message"],
)
async def test_a_strict_template_gets_alternating_roles(strict, conversation, equal) -> None:
    encoded = strict._model._format.prompt
    assert encoded(conversation, []) == encoded(equal, [])
    assert await strict.score(conversation, ["yes"]) == await strict.score(equal, ["yes"])


async def test_a_role_that_the_template_rejects_is_refused(strict) -> None:
    with pytest.raises(InvalidInput, match="the model's chat template refuses this conversation"):
        await strict.complete([Message.of_text("critic", "no"), user()], GREEDY)


async def test_a_lenient_template_gets_the_conversation_unchanged(backend) -> None:
    encoded = backend._model._format.prompt
    assert encoded([user("a"), user("b")], []) != encoded([user("a\nb")], [])
