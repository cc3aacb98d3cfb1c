"""Failures of the API: status and sentence, without the key and the prompt."""

import asyncio
import socket
import time
from email.utils import formatdate

import pytest

from mlserver_chat import ChatError, InvalidInput, Message, NotReachable, RateLimited, UpstreamFailed
from mlserver_chat.testing import Reply
from support import free_ports

KEY = "sk-test-planted-0123456789"
SECRET_TEXT = "my password is hunter2"
MESSAGES = [Message.of_text("user", SECRET_TEXT)]


@pytest.fixture(autouse=True)
def _the_planted_key_is_the_one_in_use(key: str) -> None:
    assert key == KEY


async def failure(backend, streamed: bool = False) -> ChatError:
    with pytest.raises(ChatError) as caught:
        if streamed:
            async for _ in backend.stream(MESSAGES, {}):
                pass
        else:
            await backend.complete(MESSAGES, {})
    sentence = str(caught.value)
    assert KEY not in sentence and SECRET_TEXT not in sentence
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "the cause would be logged"
    return caught.value


ECHO = {"message": f"bad key {KEY} for {SECRET_TEXT}", "code": "some_code", "param": "temperature"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, UpstreamFailed),
        (402, UpstreamFailed),
        (403, UpstreamFailed),
        (404, UpstreamFailed),
        (408, UpstreamFailed),
        (409, UpstreamFailed),
        (413, InvalidInput),
        (422, InvalidInput),
        (429, RateLimited),
        (500, UpstreamFailed),
        (502, UpstreamFailed),
        (503, UpstreamFailed),
        (529, UpstreamFailed),
    ],
)
async def test_a_status_of_the_api_has_a_fixed_meaning(api, backend, status, kind, streamed):
    api.script(Reply(status=status, error=ECHO))
    error = await failure(backend(), streamed)
    assert type(error) is kind
    assert error.status_code not in (400, 404) and error.status_code < 500
    assert "some_code" in str(error)


async def test_a_refusal_names_the_option(api, backend):
    api.script(Reply(status=400, error={"param": "temperature", "code": "invalid_value"}))
    assert str(await failure(backend())) == (
        "the API refuses the request with status 400 (param 'temperature', code 'invalid_value', type 'scripted_error')"
    )


@pytest.mark.parametrize(
    "code", [KEY, KEY.lower(), KEY.upper(), f"key_{KEY}_is_bad", KEY[8:], f"invalid.{KEY[3:14].upper()}"]
)
@pytest.mark.parametrize("name", ["code", "param", "type"])
async def test_an_error_code_that_holds_the_key_is_dropped(api, backend, name, code):
    error = {"code": None, "param": f"{SECRET_TEXT}!", "type": {"x": 1}, name: code}
    api.script(Reply(status=400, error=error))
    assert str(await failure(backend())) == "the API refuses the request with status 400"


async def test_an_error_code_without_the_key_is_repeated(api, backend):
    api.script(Reply(status=400, error={"code": "context_length", "param": "messages", "type": {"x": 1}}))
    sentence = "the API refuses the request with status 400 (param 'messages', code 'context_length')"
    assert str(await failure(backend())) == sentence


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("20", "; try again after 20 s"),
        ("0.2", "; try again after 1 s"),
        ("-3", ""),
        ("1e99", ""),
        ("soon", ""),
        ("nan", ""),
    ],
)
async def test_a_sensible_retry_after_is_passed_on(api, backend, header, wait):
    api.script(Reply(status=429, headers={"retry-after": header}))
    error = await failure(backend())
    assert str(error) == f"rate limited: the API's rate limit is exceeded (type 'scripted_error'){wait}"


async def test_retry_after_may_be_a_date(api, backend):
    api.script(Reply(status=429, headers={"retry-after": formatdate(time.time() + 45, usegmt=True)}))
    assert "; try again after 4" in str(await failure(backend()))


async def test_no_connection_means_that_nothing_was_sent(backend):
    url = f"http://127.0.0.1:{free_ports(1)[0]}/v1"
    for retries in (0, 1):
        error = await failure(backend(base_url=url, max_retries=retries))
        assert isinstance(error, NotReachable) and error.status_code == 503


async def test_an_earlier_attempt_that_was_sent_makes_the_error_424(backend):
    """The first attempt is cut off, the second finds nobody listening: Envoy would re-send a 503."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    async def hang_up() -> None:
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        listener.close()
        await asyncio.get_running_loop().sock_recv(connection, 65536)
        connection.close()

    hanging_up = asyncio.create_task(hang_up())
    error = await failure(backend(base_url=url, max_retries=1))
    await hanging_up
    assert isinstance(error, UpstreamFailed)


async def test_a_slow_answer_ends_at_the_timeout(api, backend):
    api.script(Reply(delay=30))
    began = time.monotonic()
    error = await failure(backend(timeout=0.3))
    assert str(error) == "upstream failed: the API did not answer in time"
    assert time.monotonic() - began < 2


async def test_a_call_may_have_its_own_time_limit(api, backend):
    api.script(Reply(delay=30), Reply(delay=0.4, text="late"))
    with pytest.raises(UpstreamFailed, match="did not answer in time"):
        await backend(timeout=20).complete(MESSAGES, {"timeout": 0.2})
    assert (await backend(timeout=0.2).complete(MESSAGES, {"timeout": 5})).text == "late"
    with pytest.raises(InvalidInput, match="option 'timeout' is not a number of seconds greater than 0"):
        await backend().complete(MESSAGES, {"timeout": "soon"})


async def test_the_time_limit_covers_retries_and_their_waits(api, backend):
    api.script(*[Reply(status=429, headers={"retry-after": "60"})] * 3)
    began = time.monotonic()
    assert isinstance(await failure(backend(timeout=0.5, max_retries=2)), UpstreamFailed)
    assert time.monotonic() - began < 2


async def test_a_successful_retry_is_answered(api, backend):
    api.script(Reply(status=500, headers={"retry-after": "0.01"}), Reply(text="fine"))
    assert (await backend(max_retries=1).complete(MESSAGES, {})).text == "fine"
    assert [received.headers["x-stainless-retry-count"] for received in api.received] == ["0", "1"]


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b'{"choices": [{"mess',
            b"<html>",
            b"null",
            b"[]",
            b'"text"',
            b"{}",
            b'{"choices": []}',
            b'{"choices": null}',
        ),
        *(
            b'{"choices": [3]}',
            b'{"choices": [{"message": {"content": 5}}]}',
            b'{"error": {"message": "x"}}',
            b"\xff\xfe",
        ),
    ],
)
async def test_an_answer_that_is_no_completion_is_an_upstream_failure(api, backend, body):
    api.script(Reply(body=body))
    assert isinstance(await failure(backend()), UpstreamFailed)


async def test_a_cut_connection_is_an_upstream_failure(api, backend):
    api.script(Reply(cut_after=0), Reply(text="a b c", cut_after=3))
    assert isinstance(await failure(backend()), UpstreamFailed)
    error = await failure(backend(), streamed=True)
    assert str(error) == "upstream failed: the connection to the API broke before the answer was complete"


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"choices": [{"del',
        b'data: {"choices": [{"del\n\n',
        b"data: 3\n\n",
        b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n',
        b'data: {"error": {"message": "sk-secret", "code": "server_error"}}\n\n',
        b"",
    ],
)
async def test_an_incomplete_stream_is_an_upstream_failure(api, backend, body):
    api.script(Reply(body=body))
    assert isinstance(await failure(backend(), streamed=True), UpstreamFailed)


async def test_no_redirect_is_followed(api, backend):
    api.script(Reply(status=307, headers={"location": api.base_url + "/chat/completions"}))
    error = await failure(backend())
    assert str(error) == (
        "upstream failed: the API answered with status 307: redirects are not followed (type 'scripted_error')"
    )
    assert len(api.received) == 1


async def test_a_caller_that_leaves_ends_the_call(api, backend):
    api.script(Reply(text="a b c", pause=0.05))
    stream = backend().stream(MESSAGES, {})
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(2):
        while not api.received[0].hung_up:
            await asyncio.sleep(0.02)
