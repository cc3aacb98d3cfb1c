"""The request path that the three LLM runtimes share."""

import asyncio
import json

import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import (
    ChatBackend,
    ChatStep,
    InvalidInput,
    Message,
    PromptSettings,
    RateLimited,
    Runtime,
    encode_history,
    request_headers,
)
from mlserver_chat.tensors import as_input, request_of, text_elements, text_input
from mlserver_chat.testing import FakeBackend


class Step(Runtime[PromptSettings]):
    settings_class = PromptSettings
    backend: ChatBackend

    async def load(self) -> bool:
        self.step = ChatStep(
            self, self.backend, self.config, self.config.catalog(self.folder), "llm", {"temperature": 0.5, "top_p": 0.9}
        )
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        return await self.step.run(request)

    def handle_stream(self, request: InferenceRequest):
        return self.step.stream(request)


async def served(tmp_path, backend: ChatBackend, **extra: object) -> Step:
    settings = ModelSettings(name="step", implementation="x.Y", parameters=ModelParameters(extra=extra))
    step = Step(settings)
    step.backend, step.folder = backend, tmp_path
    assert await step.load()
    return step


def texts(response: InferenceResponse) -> dict[str, list[str]]:
    return {o.name: text_elements(o) for o in response.outputs if o.datatype == "BYTES"}


def chat(*words: str) -> list:
    return [text_input("role", ["user"]), text_input("content", [" ".join(words)])]


PROMPT = {
    "name": "ask",
    "version": "3",
    "template": [{"role": "user", "content": "Status of {issue}?"}],
    "invocation_config": {"temperature": 0, "max_tokens": 9},
}


async def test_the_answer_comes_as_tensors_and_parameters_name_its_origin(tmp_path):
    step = await served(tmp_path, FakeBackend("fine, thanks"), prompt=PROMPT)
    inputs = [text_input("issue", ["48213"]), text_input("memory_id", ["m-1"])]
    response = await step.predict(request_of(inputs))
    values = texts(response)
    assert (values["role"], values["content"], values["type"]) == (["assistant"], ["fine, thanks"], ["text"])
    assert values["memory_id"] == ["m-1"]
    assert json.loads(values["output_all"][0])["choices"][0]["message"]["content"] == "fine, thanks"
    parameters = response.parameters.model_dump(exclude_none=True)
    assert parameters.pop("prompt_hash") and float(parameters.pop("overhead_ms")) >= 0
    assert parameters == {"prompt": "ask", "prompt_version": "3", "model": "fake", "finish_reason": "stop"}
    assert all(output.shape[1:] == [1] for output in response.outputs)


async def test_the_metadata_lists_the_prompts_tensors(tmp_path):
    step = await served(tmp_path, FakeBackend(), prompt=PROMPT)
    assert [tensor.name for tensor in (await step.metadata()).inputs] == ["issue"]


async def test_without_a_prompt_the_conversation_is_sent_unchanged(tmp_path):
    backend = FakeBackend()
    step = await served(tmp_path, backend)
    await step.predict(request_of([as_input(encode_history([Message.of_text("user", "before")])), *chat("now")]))
    assert [message.text for message in backend.calls[0][0]] == ["before", "now"]
    with pytest.raises(InvalidInput, match="expected a conversation"):
        await step.predict(request_of([text_input("memory_id", ["m"])]))


@pytest.mark.parametrize(
    ("sent", "temperature"),
    [({}, 0), ({"llm_parameters": {"temperature": 1}}, 1), ({"kwargs": '{"temperature": 2}'}, 2)],
)
async def test_options_take_precedence_in_the_order_request_prompt_model(tmp_path, sent, temperature):
    backend = FakeBackend()
    step = await served(tmp_path, backend, prompt=PROMPT, llm_parameters={"temperature": 0.7, "seed": 1})
    await step.predict(request_of([text_input("issue", ["1"])], **sent))
    assert backend.calls[0][1] == {"temperature": temperature, "top_p": 0.9, "max_tokens": 9, "seed": 1}


async def test_options_may_come_as_a_tensor(tmp_path):
    backend = FakeBackend()
    step = await served(tmp_path, backend)
    options = text_input("llm_parameters", ['{"max_completion_tokens": 3, "stream": true}'])
    response = await step.predict(request_of([*chat("hi"), options]))
    assert backend.calls[0][1] == {"temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 3}
    assert texts(response)["llm_parameters"] == ['{"max_completion_tokens": 3, "stream": true}']


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_new_tokens"])
async def test_the_names_of_the_length_are_one_option(tmp_path, name):
    backend = FakeBackend()
    step = await served(tmp_path, backend, prompt=PROMPT, llm_parameters={"max_new_tokens": 100})
    await step.predict(request_of([text_input("issue", ["1"])], llm_parameters={name: 5}))
    assert {key: value for key, value in backend.calls[0][1].items() if "tokens" in key} == {name: 5}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "model",
            "models",
            "base_url",
            "api_key",
            "extra_body",
            "extra_headers",
            "timeout",
            "n",
            "best_of",
            "service_tier",
        ),
        *("safety_identifier", "prompt_cache_key", "data_sources", "plugins", "web_search_options", "chat_template"),
    ],
)
async def test_a_request_may_not_set_options_that_cost_or_redirect(tmp_path, name):
    backend = FakeBackend()
    step = await served(tmp_path, backend)
    with pytest.raises(InvalidInput, match=f"option '{name}' of 'llm_parameters' may not be set by a request"):
        await step.predict(request_of(chat("hi"), llm_parameters={name: "x"}))
    assert backend.calls == []
    allowed = await served(tmp_path, backend, allow_overrides=[name])
    await allowed.predict(request_of(chat("hi"), llm_parameters={name: "x"}))
    assert backend.calls[0][1][name] == "x"


async def test_a_stream_yields_the_answer_in_pieces(tmp_path):
    step = await served(tmp_path, FakeBackend("one two three"), prompt=PROMPT)

    async def requests():
        yield request_of([text_input("issue", ["1"]), text_input("memory_id", ["m"])])

    responses = [response async for response in step.predict_stream(requests())]
    assert "".join(texts(response)["content"][0] for response in responses) == "one two three"
    assert len(responses) == 4
    assert [getattr(r.parameters, "finish_reason", None) for r in responses] == [None, None, None, "stop"]
    for response in responses:
        values = texts(response)
        assert values["role"] == ["assistant"] and values["memory_id"] == ["m"] and "output_all" in values
        assert response.parameters.prompt_version == "3"


async def test_a_failed_stream_ends_with_a_response_that_holds_the_error(tmp_path):
    step = await served(tmp_path, FakeBackend(error=RateLimited("the API's rate limit is exceeded")))

    async def requests():
        yield request_of(chat("hi"))

    responses = [response async for response in step.predict_stream(requests())]
    assert len(responses) == 1 and responses[0].outputs == []
    assert responses[0].parameters.error == "rate limited: the API's rate limit is exceeded"
    assert responses[0].parameters.status == 429


class Slow(FakeBackend):
    closed_early = False

    async def complete(self, messages, params):
        await asyncio.sleep(0.1)
        return await super().complete(messages, params)

    async def stream(self, messages, params):
        try:
            async for chunk in super().stream(messages, params):
                await asyncio.sleep(0.03)
                yield chunk
        except GeneratorExit:
            self.closed_early = True
            raise


async def test_the_overhead_excludes_the_backends_time(tmp_path):
    step = await served(tmp_path, Slow("a b c"))
    response = await step.predict(request_of(chat("hi")))
    assert 0 < float(response.parameters.overhead_ms) < 80
    async for streamed in step.handle_stream(request_of(chat("hi"))):
        await asyncio.sleep(0.03)  # nor is the time that a slow reader takes
        assert 0 < float(streamed.parameters.overhead_ms) < 80


async def test_closing_a_response_stream_closes_the_backends_stream(tmp_path):
    backend = Slow("a b c")
    step = await served(tmp_path, backend)
    responses = step.handle_stream(request_of(chat("hi")))
    await anext(responses)
    await responses.aclose()
    assert backend.closed_early


class Asks(FakeBackend):
    seen: list[str]

    async def complete(self, messages, params, *, request=None):
        self.seen.append(request.id)
        return await super().complete(messages, params)

    async def stream(self, messages, params, *, request=None):
        self.seen.append(request_headers(request)["x-request-id"])
        async for chunk in super().stream(messages, params):
            yield chunk


async def test_a_backend_that_names_the_keyword_gets_the_request(tmp_path):
    backend = Asks("a b")
    backend.seen = []
    step = await served(tmp_path, backend)
    requests = [request_of(chat("hi"), headers={"X-Request-Id": f"r{i}"}) for i in range(3)]
    for i, request in enumerate(requests):
        request.id = f"id{i}"
    await asyncio.gather(*(step.predict(request) for request in requests))
    assert sorted(backend.seen) == ["id0", "id1", "id2"]
    backend.seen.clear()
    async for _ in step.handle_stream(requests[1]):
        pass
    assert backend.seen == ["r1"]


async def test_choices_are_scored_in_their_order(tmp_path):
    step = await served(tmp_path, FakeBackend("support"))
    response = await step.predict(request_of([*chat("hi"), text_input("choices", ["status", "support"])]))
    assert texts(response)["choices"] == ["status", "support"]
    logprobs = next(output for output in response.outputs if output.name == "logprobs")
    assert (logprobs.datatype, logprobs.shape, list(logprobs.data.root)) == ("FP64", [2, 1], [-5.0, -1.0])


async def test_passed_through_tensors_are_checked_before_the_backend_is_called(tmp_path):
    backend = FakeBackend()
    step = await served(tmp_path, backend)
    broken = text_input("memory_id", ["m"])
    broken.data.root[0] = b"\xff"
    with pytest.raises(InvalidInput, match="tensor 'memory_id' element 0 is not UTF-8 text"):
        await step.predict(request_of([*chat("hi"), broken]))
    assert backend.calls == []


async def test_an_answer_with_half_a_surrogate_pair_is_kept(tmp_path):
    step = await served(tmp_path, FakeBackend("half \ud83d"))
    assert texts(await step.predict(request_of(chat("hi"))))["content"] == ["half ?"]


class NoScores:
    def __init__(self):
        self.complete, self.stream, self.aclose = (getattr(FakeBackend(), n) for n in ("complete", "stream", "aclose"))


async def test_choices_for_a_backend_without_scores_are_refused(tmp_path):
    step = await served(tmp_path, NoScores())
    with pytest.raises(InvalidInput, match="this model can't score choices"):
        await step.predict(request_of([*chat("hi"), text_input("choices", ["a"])]))


async def test_without_a_memory_id_arms_split_by_request(tmp_path):
    prompts = [PROMPT | {"version": "1"}, PROMPT | {"version": "2"}]
    step = await served(tmp_path, FakeBackend(), prompt=prompts, prompt_options={"arms": {"1": 1, "2": 1}})
    versions = set()
    for i in range(40):
        request = request_of([text_input("issue", ["1"])])
        request.id = f"request {i}"
        versions.add((await step.predict(request)).parameters.prompt_version)
    assert versions == {"1", "2"}
