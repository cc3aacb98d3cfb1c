"""The codec: the golden cases of tests/contract/, and encoding and decoding of any messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlserver.types import RequestInput

from mlserver_chat import InvalidInput, Message, Part, decode_history, decode_messages, encode_history, encode_messages
from mlserver_chat.messages.codec import read_conversation
from mlserver_chat.tensors import dumps, text_elements, text_input
from support import ROOT

CONTRACT = ROOT / "tests" / "contract"
GOLDEN = json.loads((CONTRACT / "messages.json").read_text(encoding="utf-8"))
REFUSED = json.loads((CONTRACT / "refused.json").read_text(encoding="utf-8"))


def tensor(name: str, data: Any, shape: list[int] | None = None, **parameters: Any) -> RequestInput:
    return RequestInput.model_validate(
        {
            "name": name,
            "datatype": "BYTES",
            "shape": shape or [len(data)],
            "data": data,
            "parameters": parameters or None,
        }
    )


def tensors_of(case: dict[str, Any]) -> dict[str, RequestInput]:
    return {name: tensor(name, data, case.get("shape")) for name, data in case["tensors"].items()}


def as_request(messages: list[Message]) -> dict[str, RequestInput]:
    return {out.name: RequestInput.model_validate(out.model_dump()) for out in encode_messages(messages)}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden_case_decodes_to_its_history(case: dict[str, Any]) -> None:
    assert [message.to_history() for message in decode_messages(tensors_of(case))] == case["history"]


@pytest.mark.parametrize("case", [case for case in GOLDEN if "one_way" not in case], ids=lambda case: case["name"])
def test_golden_case_is_encoded_back(case: dict[str, Any]) -> None:
    messages = [Message.from_history(record) for record in case["history"]]
    encoded = {name: text_elements(value) for name, value in as_request(messages).items()}
    assert encoded == case["tensors"]


@pytest.mark.parametrize("case", [case for case in GOLDEN if "openai" in case], ids=lambda case: case["name"])
def test_golden_case_as_openai_messages(case: dict[str, Any]) -> None:
    assert [Message.from_history(record).to_openai() for record in case["history"]] == case["openai"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_malformed_messages_are_refused_by_name(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_messages(tensors_of(case))
    assert case["names"] in str(refused.value)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
parts = st.builds(Part, st.sampled_from(["text", "image_url", "input_audio"]), texts)
calls = st.dictionaries(st.sampled_from(["id", "type", "name"]), texts, min_size=1).map(dumps)
roles = st.sampled_from(["system", "developer", "user", "assistant", "tool"])


def _message(role: str, content: list[Part], tool_calls: list[str], identity: str | None) -> Message:
    return Message(role, tuple(content or ([] if tool_calls else [Part("text", "")])), tuple(tool_calls), identity)


messages_strategy = st.lists(
    st.builds(
        _message, roles, st.lists(parts, max_size=3), st.lists(calls, max_size=2), st.none() | texts.filter(bool)
    ),
    min_size=1,
    max_size=5,
)


@given(messages_strategy)
def test_decoding_is_the_inverse_of_encoding(messages: list[Message]) -> None:
    assert decode_messages(as_request(messages)) == messages


@given(messages_strategy)
def test_history_decodes_to_the_encoded_messages(messages: list[Message]) -> None:
    history = RequestInput.model_validate(encode_history(messages).model_dump())
    assert decode_history({"history": history}) == messages


@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from(["flat", "nested", "bytes", "column", "row"]))
def test_text_is_read_in_every_form(values: list[str], form: str) -> None:
    count = len(values)
    data: Any = {"nested": [[v] for v in values], "bytes": [v.encode() for v in values]}.get(form, values)
    shape = {"column": [count, 1], "row": [1, count], "nested": [count, 1]}.get(form, [count])
    assert text_elements(tensor("content", data, shape)) == values


def test_a_bare_string_is_one_element() -> None:
    assert text_elements(tensor("content", "abc", [1])) == ["abc"]


def test_base64_is_decoded_when_the_content_type_says_so() -> None:
    assert text_elements(tensor("content", ["aMOp"], content_type="base64")) == ["hé"]


@pytest.mark.parametrize(
    ("data", "shape", "names"),
    [
        ([b"\xff\xfe"], [1], "element 0 is not UTF-8"),
        (["\ud800"], [1], "half of a surrogate pair"),
        ([None], [1], "element 0 is null"),
        ([1], [1], "element 0 is a number"),
        ([["a", "b"], ["c", "d"]], [2, 2], "shape [2, 2]"),
    ],
)
def test_elements_other_than_text_are_refused(data: Any, shape: list[int], names: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        text_elements(tensor("content", data, shape))
    assert names in str(refused.value)


@pytest.mark.parametrize(
    "tensors",
    [
        {"history": ['{"role": "user", "content": [{"type": "text", "value": "\\ud800"}]}']},
        {"role": ["user", "user"], "content": ['["\\udc00"]', '["b"]'], "type": ['["text"]', '["text"]']},
    ],
)
def test_half_of_a_surrogate_pair_is_refused_in_json_too(tensors: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidInput):
        read_conversation(tensors_of({"tensors": tensors}))


def test_numbers_are_not_text() -> None:
    numbers = RequestInput.model_validate({"name": "content", "datatype": "INT64", "shape": [1], "data": [1]})
    with pytest.raises(InvalidInput, match="datatype INT64; expected BYTES"):
        text_elements(numbers)


def test_chat_tensors_that_repeat_the_end_of_history_count_once() -> None:
    hello, hi = Message.of_text("user", "Hello"), Message.of_text("assistant", "Hi")
    history = RequestInput.model_validate(encode_history([hello, hi]).model_dump())
    assert read_conversation({"history": history, **as_request([hi])}) == [hello, hi]
    assert read_conversation({"history": history, **as_request([hello])}) == [hello, hi, hello]


def test_a_request_without_a_conversation_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected a conversation"):
        read_conversation({"memory_id": text_input("memory_id", ["m"])})


@pytest.mark.parametrize(
    "element",
    ["x", "[]", '{"role": 1}', '{"role": "user", "content": "x"}', '{"role": "user", "content": [{"type": 1}]}'],
)
def test_malformed_history_names_the_element(element: str) -> None:
    good = Message.of_text("user", "x").to_history()
    with pytest.raises(InvalidInput, match="tensor 'history' element 1"):
        decode_history({"history": tensor("history", [good, element])})


def test_the_same_tool_call_in_history_and_chat_tensors_counts_once() -> None:
    compact = '{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}'
    tensors = {"role": tensor("role", ["assistant"]), "tool_calls": tensor("tool_calls", [compact])}
    history = RequestInput.model_validate(encode_history(decode_messages(tensors)).model_dump())
    assert len(read_conversation({"history": history, **tensors})) == 1


def test_a_lone_type_beside_tool_calls_is_no_content() -> None:
    call = tensor("tool_calls", ['{"id": "c1"}'])
    tensors = {"role": tensor("role", ["assistant"]), "type": tensor("type", ["text"]), "tool_calls": call}
    assert decode_messages(tensors)[0].parts == ()
