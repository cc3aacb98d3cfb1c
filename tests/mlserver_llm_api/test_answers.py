"""Requests to the API and its answers."""

import json

import pytest

from mlserver_chat import CompletionBuilder, Message, Part
from mlserver_chat.testing import Reply

HELLO = [Message.of_text("user", "hello")]
CALL = {"id": "call_1", "type": "function", "function": {"name": "status", "arguments": '{"issue": 48213}'}}


async def test_a_request_holds_model_messages_and_options(api, backend, key):
    image = Message("user", (Part("text", "what is this?"), Part("image_url", '{"url": "data:image/png;base64,x"}')))
    options = {"temperature": 0, "max_tokens": 5, "top_k": 3, "stop": ["x"]}
    await backend().complete([Message.of_text("system", "be kind"), image], options)
    assert api.received[0].json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be kind"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}},
                ],
            },
        ],
        **options,
    }
    assert api.received[0].headers["authorization"] == f"Bearer {key}"


async def test_the_answer_is_the_apis_json_unchanged(api, backend):
    body = {"id": "x", "choices": [{"message": {"role": "assistant", "content": "hi", "odd": [1, None]}}], "extra": {}}
    api.script(Reply(body=json.dumps(body).encode()))
    completion = await backend().complete(HELLO, {})
    assert completion.data == body
    assert (completion.text, completion.finish_reason) == ("hi", "")


async def test_tool_calls_come_with_null_content(api, backend):
    api.script(Reply(tool_calls=[CALL]))
    completion = await backend().complete(HELLO, {})
    assert completion.data["choices"][0]["message"]["content"] is None
    assert completion.text == "" and [json.loads(call) for call in completion.tool_calls] == [CALL]
    assert completion.finish_reason == "tool_calls"


async def test_a_refusal_becomes_the_text(api, backend):
    api.script(Reply(refusal="I can't."))
    assert (await backend().complete(HELLO, {})).text == "I can't."


@pytest.mark.parametrize(
    "reply",
    [
        Reply(text="one two  three"),
        Reply(text="no end mark", done=False),
        Reply(text="with usage", usage_chunk=True),
        Reply(tool_calls=[CALL]),
        Reply(refusal="I can't."),
        Reply(text="cut", finish_reason="length"),
    ],
)
async def test_a_streamed_answer_is_the_whole_answer_in_pieces(api, backend, reply):
    api.script(reply, reply)
    whole = await backend().complete(HELLO, {})
    built = CompletionBuilder()
    async for chunk in backend().stream(HELLO, {}):
        built.add(chunk)
    streamed = built.completion()
    assert (streamed.text, streamed.finish_reason) == (whole.text, whole.finish_reason)
    assert list(map(json.loads, streamed.tool_calls)) == list(map(json.loads, whole.tool_calls))
    assert api.received[1].json == api.received[0].json | {"stream": True}
    assert (built.usage is not None) == reply.usage_chunk


async def test_stream_options_are_sent_with_streams_only(api, backend):
    params = {"stream_options": {"include_usage": True}}
    await backend().complete(HELLO, params)
    assert "stream_options" not in api.received[0].json
    async for _ in backend().stream(HELLO, params):
        pass
    assert api.received[1].json["stream_options"] == {"include_usage": True}


async def test_the_clients_environment_variables_have_no_effect(api, backend, monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "someone-elses")
    await backend().complete(HELLO, {})
    assert "someone-elses" not in str(api.received[-1].headers)
