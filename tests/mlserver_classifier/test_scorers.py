"""The log-probability scorer, with correct, wrong and missing answers of the LLM."""

import math
from collections.abc import Callable

import pytest
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, ResponseOutput

from mlserver_chat import BoundModel, InvalidInput, Message, NotReachable, RateLimited, UpstreamFailed, request_headers
from mlserver_chat.messages.codec import decode_messages
from mlserver_chat.tensors import float_output, read_tensors, required_text, text_input, text_output
from mlserver_chat.testing import FakeModelClient
from mlserver_classifier.prompt import classification_messages
from mlserver_classifier.scorers import LogprobScorer
from mlserver_classifier.settings import RouteSettings

ROUTES = [RouteSettings(name="status", description="asks for a status"), RouteSettings(name="support")]
LABELS = ["status", "support"]
CONVERSATION = [Message.of_text("user", "what about 48213?")]


def answer(*outputs: ResponseOutput) -> Callable[[InferenceRequest], InferenceResponse]:
    return lambda request: InferenceResponse(model_name="llm", outputs=list(outputs))


def scorer(llm: Callable[[InferenceRequest], InferenceResponse]) -> tuple[LogprobScorer, FakeModelClient]:
    client = FakeModelClient({"llm": llm})
    return LogprobScorer(BoundModel("llm", client), ROUTES), client


async def test_the_llm_gets_the_prompt_the_routes_and_the_request_id() -> None:
    good = answer(text_output("choices", LABELS), float_output("logprobs", [math.log(0.6), math.log(0.2)]))
    logprob, client = scorer(good)
    caller = InferenceRequest(id="42", inputs=[], parameters=Parameters(headers={"x-tenant": "t", "cookie": "c"}))
    caller.inputs = [text_input("memory_id", ["m-1"]), text_input("other", ["x"])]
    assert await logprob.score(CONVERSATION, LABELS, request=caller) == pytest.approx([0.75, 0.25])
    ((_, sent),) = client.calls
    tensors = read_tensors(sent.inputs)
    assert decode_messages(tensors) == classification_messages(CONVERSATION, ROUTES)
    assert required_text(tensors, "choices") == LABELS
    assert required_text(tensors, "memory_id") == ["m-1"]
    assert "other" not in tensors
    assert sent.id == "42"
    assert request_headers(sent) == {"x-tenant": "t", "x-request-id": "42"}


async def test_the_answer_may_have_another_order() -> None:
    logprob, _ = scorer(answer(text_output("choices", LABELS[::-1]), float_output("logprobs", [-9.0, 0.0])))
    assert (await logprob.score(CONVERSATION, LABELS))[0] > 0.99


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [text_output("content", ["status"])],
        [text_output("choices", LABELS)],
        [text_output("choices", LABELS), float_output("logprobs", [-1.0])],
        [text_output("choices", ["status"]), float_output("logprobs", [-1.0])],
        [text_output("choices", ["status", "other"]), float_output("logprobs", [-1.0, -2.0])],
        [text_output("choices", ["status", "status"]), float_output("logprobs", [-1.0, -2.0])],
        [text_output("choices", LABELS), text_output("logprobs", ["-1", "-2"])],
        [float_output("choices", [1.0, 2.0]), float_output("logprobs", [-1.0, -2.0])],
        [text_output("choices", LABELS), float_output("logprobs", [math.nan, -1.0])],
        [text_output("choices", LABELS), float_output("logprobs", [math.inf, -1.0])],
    ],
)
async def test_a_malformed_answer_is_an_upstream_failure(outputs: list[ResponseOutput]) -> None:
    logprob, _ = scorer(answer(*outputs))
    with pytest.raises(UpstreamFailed):
        await logprob.score(CONVERSATION, LABELS)


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (InvalidInput("the request has the tensor 'choices', but this model can't score choices"), UpstreamFailed),
        (NotReachable("model 'llm' can't be reached"), NotReachable),
        (RateLimited("too many"), RateLimited),
        (UpstreamFailed("gone"), UpstreamFailed),
    ],
)
async def test_errors_of_the_llm_keep_their_kind_but_a_refusal_is_an_upstream_failure(
    raised: Exception, seen: type[Exception]
) -> None:
    def fail(request: InferenceRequest) -> InferenceResponse:
        raise raised

    logprob, _ = scorer(fail)
    with pytest.raises(seen):
        await logprob.score(CONVERSATION, LABELS)
