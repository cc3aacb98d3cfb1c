"""Time and size limits, against a real V2 server that trickles or never ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from mlserver_chat import NotReachable, RemoteClient, UpstreamFailed
from mlserver_chat.tensors import request_of, text_input
from support import unanswered_port

REQUEST = request_of([text_input("content", ["hi"])])
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
EVENT = b'data: {"model_name": "m", "outputs": []}\n\n'


@asynccontextmanager
async def serving(head: bytes, piece: bytes, pause: float) -> AsyncIterator[str]:
    """A server that sends `head` and then `piece` again and again."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        try:
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def infer(remote: RemoteClient) -> None:
    await remote.infer("m", REQUEST)


async def stream(remote: RemoteClient) -> None:
    async for _ in remote.stream("m", REQUEST):
        pass


@pytest.mark.parametrize("call", [infer, stream])
@pytest.mark.parametrize(
    ("head", "piece"),
    [(b"HTTP/1.1 200 OK\r\nx-slow: ", b"x"), (HEAD, b" "), (HEAD, b"\n"), (HEAD, b": still here\n")],
    ids=["headers", "body", "lines", "comments"],
)
async def test_a_trickling_server_ends_at_the_timeout(
    call: Callable[[RemoteClient], Awaitable[None]], head: bytes, piece: bytes
) -> None:
    async with serving(head, piece, pause=0.02) as url:
        remote = RemoteClient(url, timeout=0.3)
        with pytest.raises(UpstreamFailed, match="did not answer in time"):
            async with asyncio.timeout(5):
                await call(remote)
        await remote.aclose()


@pytest.mark.parametrize("call", [infer, stream])
async def test_an_endless_line_is_cut_at_the_limit(call: Callable[[RemoteClient], Awaitable[None]]) -> None:
    async with serving(HEAD, b"x" * 65_536, pause=0) as url:
        remote = RemoteClient(url, timeout=20, max_bytes=200_000)
        with pytest.raises(UpstreamFailed, match="answered more than"):
            await call(remote)
        await remote.aclose()


@pytest.mark.parametrize("call", [infer, stream])
async def test_a_timeout_before_anything_is_sent_is_not_reachable(
    call: Callable[[RemoteClient], Awaitable[None]],
) -> None:
    with unanswered_port() as port:
        remote = RemoteClient(f"http://127.0.0.1:{port}", timeout=0.3)
        with pytest.raises(NotReachable, match="model 'm' can't be reached in time"):
            await call(remote)
        await remote.aclose()


async def test_a_stream_that_goes_on_may_outlast_the_timeout() -> None:
    async with serving(HEAD, EVENT, pause=0.05) as url:
        remote = RemoteClient(url, timeout=0.3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stream(remote)
        await remote.aclose()
