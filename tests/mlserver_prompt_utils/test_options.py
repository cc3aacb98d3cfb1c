"""Options of requests: the allow-list, values without effect, and limits."""

import pytest
from mlserver.types import InferenceRequest

from mlserver_chat import InvalidInput, PromptSettings
from mlserver_chat.llm.options import without_neutral
from mlserver_chat.tensors import read_tensors, request_of, text_input

NEUTRAL = {
    "n": 1,
    "user": "u-1",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "auto",
    "top_logprobs": 0,
    "logprobs": False,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "parallel_tool_calls": True,
    "tools": [],
    "stream": True,
    "stream_options": {"include_usage": False},
    "best_of": None,
}


def read(options: dict[str, object], **settings: object) -> dict[str, object]:
    request: InferenceRequest = request_of([text_input("role", ["user"])], llm_parameters=options)
    reader = PromptSettings.model_validate(settings).request_options()
    return without_neutral(reader.read(request, read_tensors(request.inputs)))


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_value_without_effect_is_accepted_and_dropped(name: str) -> None:
    assert read({name: NEUTRAL[name]}) == {}


@pytest.mark.parametrize(
    ("name", "value"), [("n", True), ("n", 2), ("store", 0), ("store", True), ("service_tier", "flex")]
)
def test_a_value_that_only_looks_neutral_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"option '{name}'"):
        read({name: value})


def test_a_neutral_value_overrides_the_settings() -> None:
    request = request_of([], llm_parameters={"presence_penalty": 0})
    options = PromptSettings().request_options().read(request, {})
    assert without_neutral({"presence_penalty": 0.5, **options}) == {}


def test_allowed_options_replaces_the_default_list() -> None:
    assert read({"seed": 1}, allowed_options=["seed"]) == {"seed": 1}
    with pytest.raises(InvalidInput, match="option 'temperature'"):
        read({"temperature": 1}, allowed_options=["seed"])


def test_allow_overrides_adds_to_the_list() -> None:
    options = {"user": "u-1", "temperature": 1}
    assert read(options, allow_overrides=["user"]) == options


def test_tools_count_as_options() -> None:
    request = request_of([text_input("tools", ['{"type": "function"}'])])
    reader = PromptSettings(allowed_options=["seed"]).request_options()
    with pytest.raises(InvalidInput, match="option 'tools'"):
        reader.read(request, read_tensors(request.inputs))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_new_tokens"])
@pytest.mark.parametrize("value", [4097, 10**9, 10**400, 4096.5])
def test_a_length_over_the_limit_is_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"option '{name}' exceeds this model's limit; expected at most 4096"):
        read({name: value})


def test_a_length_of_minus_one_means_the_limit() -> None:
    assert read({"max_tokens": -1}, limits={"max_tokens": 100}) == {"max_tokens": 100}


def test_n_has_a_limit() -> None:
    assert read({"n": 8}, allow_overrides=["n"]) == {"n": 8}
    with pytest.raises(InvalidInput, match="expected at most 8"):
        read({"n": 9}, allow_overrides=["n"])


@pytest.mark.parametrize(
    ("stop", "sentence"),
    [(["x"] * 17, "has 17 texts; expected at most 16"), ("x" * 257, "257 characters"), (["ok", 1], "is not a text")],
)
def test_stop_texts_have_limits(stop: object, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        read({"stop": stop})


@pytest.mark.parametrize("value", [1, {"include_usage": "yes"}, [True]])
def test_malformed_stream_options_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="stream_options"):
        read({"stream_options": value})


def test_stream_options_ask_for_usage() -> None:
    options = {"stream_options": {"include_usage": True, "include_obfuscation": False}}
    assert read(options) == {"stream_options": {"include_usage": True}}


def test_a_refusal_repeats_only_the_printable_start_of_a_name() -> None:
    with pytest.raises(InvalidInput) as refused:
        read({"\x1b[31m" + "x" * 10_000: 1})
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 200
