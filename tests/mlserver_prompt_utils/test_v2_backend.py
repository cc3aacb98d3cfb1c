"""The backend that calls the LLM of another model: its requests and the answers that it reads."""

import json

import pytest
from mlserver.types import InferenceRequest, InferenceResponse, Parameters

from mlserver_chat import BoundModel, Completion, InvalidInput, Message, NotReachable, UpstreamFailed
from mlserver_chat.tensors import read_tensors, request_of, text_elements, text_input, text_output
from mlserver_chat.testing import FakeModelClient
from mlserver_prompt_utils.v2_backend import V2Backend

HELLO = [Message.of_text("system", "be kind"), Message.of_text("user", "hello")]
COMPLETION = {
    "id": "c1",
    "object": "chat.completion",
    "created": 5,
    "model": "tiny",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


def answering_with(*outputs, **parameters: object) -> tuple[V2Backend, FakeModelClient]:
    response = InferenceResponse(model_name="llm", outputs=list(outputs), parameters=Parameters(**parameters))
    client = FakeModelClient({"llm": lambda _: response})
    return V2Backend(BoundModel("llm", client)), client


def sent(client: FakeModelClient) -> dict[str, list[str]]:
    tensors = read_tensors(client.calls[0][1].inputs)
    return {name: text_elements(tensor) for name, tensor in tensors.items()}


async def test_messages_options_and_tools_are_sent_as_tensors():
    backend, client = answering_with(text_output("output_all", [json.dumps(COMPLETION)]))
    tool = {"type": "function", "function": {"name": "f"}}
    params = {"temperature": 0, "tools": [tool], "tool_choice": {"type": "function"}, "parallel_tool_calls": False}
    await backend.complete(HELLO, params)
    assert sent(client) == {
        "role": ["system", "user"],
        "content": ['["be kind"]', '["hello"]'],
        "type": ['["text"]', '["text"]'],
        "tools": [json.dumps(tool)],
        "tool_choice": ['{"type": "function"}'],
        "parallel_tool_calls": ["false"],
        "llm_parameters": ['{"temperature": 0}'],
    }


async def test_the_call_carries_the_request_id():
    backend, client = answering_with(text_output("output_all", [json.dumps(COMPLETION)]))
    headers = {"X-Request-Id": "r1", "x-team": "qa", "authorization": "Bearer secret"}
    asked = request_of([text_input("memory_id", ["m-1"]), text_input("other", ["x"])], headers=headers)
    await backend.complete(HELLO, {}, request=asked)
    assert sent(client)["memory_id"] == ["m-1"]
    assert "other" not in sent(client)
    request: InferenceRequest = client.calls[0][1]
    assert request.parameters.headers == {"x-request-id": "r1", "x-team": "qa"}


async def test_output_all_is_the_completion_unchanged():
    backend, _ = answering_with(text_output("content", ["other"]), text_output("output_all", [json.dumps(COMPLETION)]))
    assert (await backend.complete(HELLO, {})).data == COMPLETION


async def test_an_answer_without_output_all_is_read_from_its_text():
    backend, _ = answering_with(text_output("role", ["assistant"]), text_output("content", ["hi"]))
    completion = await backend.complete(HELLO, {})
    assert (completion.role, completion.text, completion.model) == ("assistant", "hi", "llm")
    assert [chunk.text async for chunk in backend.stream(HELLO, {})] == ["hi"]


async def test_a_whole_answer_becomes_the_only_chunk_of_a_stream():
    """A model in a worker process doesn't stream."""
    backend, _ = answering_with(text_output("output_all", [json.dumps(COMPLETION)]))
    chunks = [chunk async for chunk in backend.stream(HELLO, {})]
    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [("hi", "stop")]
    assert chunks[0].data["object"] == "chat.completion.chunk"


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [text_output("role", ["assistant"])],
        [text_output("output_all", ["{"])],
        [text_output("output_all", ["3"])],
        [text_output("output_all", ['{"object": "chat.completion"}'])],
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_without_a_completion_is_an_upstream_failure(outputs, streamed):
    backend, _ = answering_with(*outputs)
    with pytest.raises(UpstreamFailed):
        if streamed:
            [chunk async for chunk in backend.stream(HELLO, {})]
        else:
            await backend.complete(HELLO, {})


async def test_a_missing_model_is_not_reachable():
    with pytest.raises(NotReachable):
        await V2Backend(BoundModel("absent", FakeModelClient({}))).complete(HELLO, {})


async def test_a_refusal_of_the_llm_is_passed_on():
    def refuse(_: InferenceRequest) -> InferenceResponse:
        raise InvalidInput("the conversation has 900 tokens; the model's context holds 512")

    backend = V2Backend(BoundModel("llm", FakeModelClient({"llm": refuse})))
    with pytest.raises(InvalidInput, match="900 tokens"):
        await backend.complete(HELLO, {})


def test_the_test_completion_is_valid():
    assert Completion.of_json(COMPLETION).finish_reason == "stop"
