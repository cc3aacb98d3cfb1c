"""The clients for models of other V2 servers and of this process."""

import asyncio
import gzip
import json

import httpx2
import pytest
from mlserver import MLModel, ModelSettings
from mlserver.errors import MLServerError
from mlserver.types import InferenceResponse

from mlserver_chat import (
    ChatError,
    Conflict,
    InternalError,
    InvalidInput,
    NotReachable,
    RateLimited,
    RemoteClient,
    SameProcessClient,
    SettingsError,
    SiblingSettings,
    Stalled,
    UpstreamFailed,
    bind_llm,
)
from mlserver_chat.errors import MAX_SENTENCE
from mlserver_chat.requests.deadline import DEADLINE_HEADER, Deadline, deadline_scope
from mlserver_chat.tensors import request_of, text_elements, text_input, text_output
from support import free_ports

RESPONSE = InferenceResponse(model_name="m", outputs=[text_output("content", ["grüß dich 🙂"])])
BODY = RESPONSE.model_copy(update={"outputs": []}).model_dump(exclude_none=True) | {
    "outputs": [{"name": "content", "shape": [1, 1], "datatype": "BYTES", "data": ["grüß dich 🙂"]}]
}
REQUEST = request_of([text_input("content", ["hi"])], headers={"X-Request-Id": "r1", "Authorization": "secret"}, n=1)


def client(handler, uri: str = "http://llm", timeout: float = 5, max_bytes: int = 2**20) -> RemoteClient:
    made = RemoteClient(uri, timeout, max_bytes=max_bytes)
    made._http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    return made


def event(parameters: dict[str, object], outputs: object = ()) -> str:
    return f"data: {json.dumps({'model_name': 'm', 'parameters': parameters, 'outputs': list(outputs)})}\n\n"


async def pieces(remote: RemoteClient) -> list[str]:
    return [text_elements(r.outputs[0])[0] async for r in remote.stream("m", REQUEST)]


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("http://llm/", "http://llm/v2/models/m/infer"),
        ("http://envoy:9000/v2/models/support-tiny/infer", "http://envoy:9000/v2/models/support-tiny/infer"),
        ("http://envoy:9000/v2/pipelines/chat/infer", "http://envoy:9000/v2/pipelines/chat/infer"),
    ],
)
async def test_a_request_is_sent_to_the_models_url_with_its_x_headers(uri, url):
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=BODY)

    response = await client(answer, uri).infer("m", REQUEST)
    assert text_elements(response.outputs[0]) == ["grüß dich 🙂"]
    assert str(seen[0].url) == url
    assert seen[0].headers["x-request-id"] == "r1" and "authorization" not in seen[0].headers
    sent = json.loads(seen[0].content)
    assert sent["inputs"][0]["data"] == ["hi"] and sent["parameters"] == {"n": 1}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (422, InvalidInput),
        (409, Conflict),
        (429, RateLimited),
        (424, UpstreamFailed),
        (503, NotReachable),
        (504, Stalled),
        (400, UpstreamFailed),
        (404, UpstreamFailed),
        (500, UpstreamFailed),
        (302, UpstreamFailed),
    ],
)
@pytest.mark.parametrize("body", [{"json": {"error": "the sentence"}}, {"text": "<html>"}, {"json": [1]}])
async def test_an_error_of_the_server_becomes_an_error_of_the_tree(status, kind, body):
    remote = client(lambda _: httpx2.Response(status, **body))
    for call in (remote.infer("m", REQUEST), pieces(remote)):
        with pytest.raises(ChatError) as caught:
            await call
        assert type(caught.value) is kind
        assert ("the sentence" in str(caught.value)) == (body == {"json": {"error": "the sentence"}})


async def test_a_stream_is_read_event_by_event():
    text = "".join(event({}, BODY["outputs"]) for _ in range(3))
    assert await pieces(client(lambda _: httpx2.Response(200, text=text))) == ["grüß dich 🙂"] * 3


async def test_a_stream_that_reports_an_error_raises_it():
    text = event({}, BODY["outputs"]) + event({"error": "rate limited: later", "status": 429})
    remote = client(lambda _: httpx2.Response(200, text=text))
    with pytest.raises(RateLimited, match="rate limited: later"):
        await pieces(remote)


@pytest.mark.parametrize("status", [404, 405])
async def test_a_model_without_streams_answers_in_one_piece(status):
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status) if request.url.path.endswith("_stream") else httpx2.Response(200, json=BODY)

    assert await pieces(client(answer, "http://envoy/v2/pipelines/chat/infer")) == ["grüß dich 🙂"]


@pytest.mark.parametrize("text", ["{", "[]", "data: {\n\n", '{"outputs": 3}'])
async def test_an_answer_that_is_not_v2_is_an_upstream_failure(text):
    remote = client(lambda _: httpx2.Response(200, text=text))
    with pytest.raises(UpstreamFailed, match="not a V2 response"):
        await remote.infer("m", REQUEST)


async def test_the_cause_of_an_error_has_the_servers_status():
    remote = client(lambda _: httpx2.Response(404, json={"error": "no such model"}))
    with pytest.raises(UpstreamFailed) as caught:
        await remote.infer("m", REQUEST)
    cause = caught.value.__cause__
    assert isinstance(cause, MLServerError) and (cause.status_code, str(cause)) == (404, "no such model")


async def test_the_x_headers_of_an_answer_become_its_parameter_headers():
    remote = client(lambda _: httpx2.Response(200, json=BODY, headers={"X-Color": "red", "server": "s"}))
    assert (await remote.infer("m", REQUEST)).parameters.headers == {"x-color": "red"}


async def test_an_answer_or_line_over_max_bytes_is_refused():
    remote = client(lambda _: httpx2.Response(200, content=b"x" * 5000), max_bytes=4096)
    for call in (remote.infer("m", REQUEST), pieces(remote)):
        with pytest.raises(UpstreamFailed, match="answered more than"):
            await call
    lines = event({}, BODY["outputs"]) * 100
    remote = client(lambda _: httpx2.Response(200, text=lines), max_bytes=4096)
    assert len(await pieces(remote)) == 100


async def test_a_compressed_answer_is_not_decompressed():
    async def bomb():
        yield gzip.compress(b" " * 5_000_000 + json.dumps(BODY).encode())

    remote = client(lambda _: httpx2.Response(200, content=bomb(), headers={"content-encoding": "gzip"}))
    with pytest.raises(UpstreamFailed, match="not a V2 response"):
        await remote.infer("m", REQUEST)


async def trickle():
    while True:
        yield b":"
        await asyncio.sleep(0.01)


async def test_timeout_bounds_a_whole_answer_and_each_gap_of_a_stream():
    remote = client(lambda _: httpx2.Response(200, content=trickle()), timeout=0.1)
    for call in (remote.infer("m", REQUEST), pieces(remote)):
        with pytest.raises(UpstreamFailed, match="did not answer in time"):
            await call


async def comments():
    while True:
        yield b": still thinking\n"
        await asyncio.sleep(0.01)


async def test_comments_of_a_stream_do_not_extend_its_timeout():
    remote = client(lambda _: httpx2.Response(200, content=comments()), timeout=0.1)
    with pytest.raises(UpstreamFailed, match="did not answer in time"):
        await pieces(remote)


async def test_a_servers_error_sentence_is_cut():
    remote = client(lambda _: httpx2.Response(422, json={"error": "x" * 100_000}))
    with pytest.raises(InvalidInput) as caught:
        await remote.infer("m", REQUEST)
    assert len(str(caught.value)) == MAX_SENTENCE


async def test_a_deadline_bounds_a_call_and_prevents_it_once_passed():
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, content=trickle())

    for seconds, kind in ((0.1, UpstreamFailed), (0, NotReachable)):
        with deadline_scope(Deadline.after(seconds)), pytest.raises(kind):
            await client(answer).infer("m", REQUEST)
    (only,) = sent
    assert 0 < int(only.headers[DEADLINE_HEADER]) <= 100


async def test_declared_outputs_come_from_the_models_metadata():
    metadata = {"name": "m", "platform": "", "inputs": [], "outputs": [{"name": "o", "datatype": "BYTES", "shape": []}]}
    assert await client(lambda _: httpx2.Response(200, json=metadata)).declared_outputs("m") == ["o"]
    with pytest.raises(UpstreamFailed):
        await client(lambda _: httpx2.Response(200, json=[])).declared_outputs("m")


async def test_a_server_that_is_down_is_not_reachable():
    remote = RemoteClient(f"http://127.0.0.1:{free_ports(1)[0]}", timeout=5)
    for call in (remote.infer("m", REQUEST), pieces(remote)):
        with pytest.raises(NotReachable, match="model 'm' can't be reached"):
            await call
    await remote.aclose()


async def test_a_header_may_hold_any_script():
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=BODY)

    await client(answer).infer("m", request_of([text_input("content", ["hi"])], headers={"x-user": "Jürgen"}))
    assert (b"x-user", b"J%C3%BCrgen") in seen[0].headers.raw


class Sibling(MLModel):
    """A model of the same process that does what `doing` says."""

    def __init__(self, doing):
        super().__init__(ModelSettings(name="sibling", implementation="mlserver.MLModel"))
        self.ready = True
        self.doing = doing

    async def predict(self, payload):
        await self.doing()
        return RESPONSE


class Registry:
    def __init__(self, doing):
        self.model = Sibling(doing)

    async def get_model(self, name):
        return self.model


async def bug():
    raise ValueError("sk-planted")


async def fixed_500():
    raise InternalError


async def slow():
    await asyncio.sleep(5)


@pytest.mark.parametrize("doing", [bug, fixed_500, slow])
async def test_a_failing_sibling_is_an_upstream_failure_and_not_a_500(doing):
    here = SameProcessClient(Registry(doing), timeout=0.1)  # type: ignore[arg-type]
    with pytest.raises(UpstreamFailed) as infer:
        await here.infer("sibling", REQUEST)
    with pytest.raises(UpstreamFailed) as stream:
        _ = [response async for response in here.stream("sibling", REQUEST)]
    assert "sk-planted" not in f"{infer.value}{stream.value}"


async def test_a_base_url_needs_the_name_of_the_model():
    with pytest.raises(SettingsError, match="'llm_uri' is a server's base URL; set 'llm'"):
        await bind_llm(SiblingSettings(llm_uri="http://llm:8080"), Sibling(bug).settings, None)
