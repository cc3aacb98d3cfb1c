"""Time and size limits, against a real API that trickles or never ends."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable

import pytest

from mlserver_chat import ChatError, Message, NotReachable, UpstreamFailed
from mlserver_chat.requests.deadline import Deadline, deadline_scope
from mlserver_chat.testing import Reply
from mlserver_llm_api.openai_backend import OpenAIBackend
from support import unanswered_port

MESSAGES = [Message.of_text("user", "hi")]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n\r\n"
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'


class Api:
    """A server that sends the same piece again and again, and counts connections and disconnects."""

    def __init__(self, content_type: bytes, piece: bytes, pause: float):
        self._answer = content_type, piece, pause
        self.connections = self.hung_up = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content_type, piece, pause = self._answer
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD % content_type)
        try:
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            self.hung_up += 1
        finally:
            writer.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., object]]:
    servers: list[asyncio.Server] = []

    async def start(content_type: bytes, piece: bytes, pause: float = 0.0) -> tuple[Api, str]:
        api = Api(content_type, piece, pause)
        server = await asyncio.start_server(api, "127.0.0.1", 0)
        servers.append(server)
        return api, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    yield start
    for server in servers:
        server.close()


async def failure(backend: OpenAIBackend, streamed: bool) -> ChatError:
    with pytest.raises(ChatError) as caught:
        if streamed:
            async for _ in backend.stream(MESSAGES, {}):
                pass
        else:
            await backend.complete(MESSAGES, {})
    return caught.value


async def test_a_trickling_answer_ends_at_the_timeout(serve, backend):
    _, url = await serve(b"application/json", b" ", 0.1)
    began = time.monotonic()
    error = await failure(backend(base_url=url, timeout=0.5), streamed=False)
    assert str(error) == "upstream failed: the API did not answer in time"
    assert time.monotonic() - began < 3


async def test_a_stream_of_bytes_without_a_chunk_ends_at_its_timeout(serve, backend):
    _, url = await serve(b"text/event-stream", b"x", 0.1)
    began = time.monotonic()
    error = await failure(backend(base_url=url, timeout=0.5), streamed=True)
    assert str(error) == "upstream failed: the API did not answer in time"
    assert time.monotonic() - began < 3


async def test_a_stream_that_goes_on_ends_at_the_stream_timeout(serve, backend):
    _, url = await serve(b"text/event-stream", CHUNK, 0.05)
    began = time.monotonic()
    error = await failure(backend(base_url=url, timeout=5, stream_timeout=0.6), streamed=True)
    assert str(error) == "upstream failed: the API did not answer in time"
    assert 0.5 < time.monotonic() - began < 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_callers_deadline_ends_an_answer(serve, backend, streamed):
    _, url = await serve(b"text/event-stream" if streamed else b"application/json", CHUNK, 0.05)
    with deadline_scope(Deadline.after(0.5)):
        error = await failure(backend(base_url=url), streamed)
    assert isinstance(error, UpstreamFailed)


@pytest.mark.parametrize("streamed", [False, True])
async def test_nothing_is_sent_after_the_deadline(serve, backend, streamed):
    api, url = await serve(b"application/json", b" ")
    with deadline_scope(Deadline.after(0)):
        error = await failure(backend(base_url=url), streamed)
    assert isinstance(error, NotReachable)
    assert api.connections == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_deadline_before_anything_is_sent_is_not_reachable(backend, streamed):
    with unanswered_port() as port, deadline_scope(Deadline.after(0.3)):
        error = await failure(backend(base_url=f"http://127.0.0.1:{port}/v1"), streamed)
    assert isinstance(error, NotReachable)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_endless_answer_is_cut_and_not_retried(serve, backend, streamed):
    api, url = await serve(b"text/event-stream" if streamed else b"application/json", b"x" * 65536)
    error = await failure(backend(max_bytes=500_000, base_url=url, max_retries=2), streamed)
    assert str(error) == "upstream failed: the API answered more than 'limits.max_response_bytes' allows"
    assert api.connections == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_compressed_answer_is_not_decompressed(api, backend, streamed):
    answer = json.dumps({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})
    bomb = gzip.compress((" " * 5_000_000 + answer).encode())
    api.script(Reply(body=bomb, headers={"content-encoding": "gzip"}))
    assert isinstance(await failure(backend(), streamed), UpstreamFailed)


async def test_a_caller_that_leaves_ends_the_upstream_call(serve, backend):
    api, url = await serve(b"application/json", b" ", 0.05)
    asking = asyncio.create_task(backend(base_url=url).complete(MESSAGES, {}))
    while not api.connections:
        await asyncio.sleep(0.01)
    asking.cancel()
    for _ in range(100):
        await asyncio.sleep(0.02)
        if api.hung_up:
            return
    raise AssertionError("the call goes on")
