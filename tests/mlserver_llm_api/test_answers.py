"""What goes to the API and what comes back."""

import json

import pytest

from mlserver_chat import CompletionBuilder, InvalidInput, Message, Part
from mlserver_chat.testing import Reply
from mlserver_llm_api.openai_backend import OpenAIBackend, build_client
from mlserver_llm_api.settings import OpenAISettings

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


async def test_a_refusal_is_the_text(api, backend):
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


async def test_options_of_streams_go_with_streams_only(api, backend):
    params = {"stream_options": {"include_usage": True}}
    await backend().complete(HELLO, params)
    assert "stream_options" not in api.received[0].json
    async for _ in backend().stream(HELLO, params):
        pass
    assert api.received[1].json["stream_options"] == {"include_usage": True}


async def test_the_clients_own_options_are_no_part_of_the_body(api, backend):
    options = {"extra_headers": {"x-team": "qa"}, "extra_query": {"v": "2"}, "extra_body": {"seed": 1}, "timeout": 3}
    await backend().complete(HELLO, options)
    assert api.received[0].json == {"model": "m", "messages": [{"role": "user", "content": "hello"}], "seed": 1}
    assert api.received[0].headers["x-team"] == "qa"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_a_value_that_cannot_be_sent_is_the_callers_fault(api, backend, value):
    with pytest.raises(InvalidInput, match="an option has a value that can't be sent"):
        await backend().complete(HELLO, {"temperature": value})
    assert api.received == []


@pytest.mark.parametrize("name", ["base_url", "api_key", "messages", "stream"])
async def test_where_a_call_goes_and_what_it_says_cannot_be_an_option(backend, name):
    with pytest.raises(InvalidInput, match=f"option '{name}' can't be set for a single call"):
        await backend().complete(HELLO, {name: "x"})


async def test_a_server_that_asks_for_no_key_gets_none_of_the_environment(api, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    config = OpenAISettings(base_url=api.base_url, model_id="m")
    backend = OpenAIBackend(build_client(config), config.model, config.timeout)
    await backend.complete(HELLO, {})
    await backend.aclose()
    assert api.received[0].headers["authorization"] == "Bearer none"


@pytest.mark.parametrize("api_type", ["azure", "azure_ad"])
def test_azure_is_called_at_its_deployment(api_type, key):
    where = {"azure_endpoint": "https://x.openai.azure.com", "api_version": "2024-10-21"}
    secret = {"api_key": key} if api_type == "azure" else {"azure_ad_token": key}
    config = OpenAISettings(api_type=api_type, model_id="gpt", **where, **secret)
    client = build_client(config)
    request = client._build_request(_options("/chat/completions", {"model": config.model, "messages": []}))
    assert str(request.url) == (
        "https://x.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
    )


def _options(url: str, body: dict[str, object]):
    from openai._models import FinalRequestOptions

    return FinalRequestOptions.construct(method="post", url=url, json_data=body)
