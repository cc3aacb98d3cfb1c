"""An OpenAI-compatible test server on the loopback interface with scripted answers."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..messages.types import usage_json

_MODEL = "scripted"


@dataclass(frozen=True)
class Reply:
    """A scripted answer, correct or faulty. It is sent in one piece or, if the client asks for a stream, in chunks."""

    text: str | None = None
    """The answer. None: an echo of the last message; beside `tool_calls` or a `refusal`, null."""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """OpenAI tool-call objects."""
    refusal: str | None = None
    """Sentence with which the model refuses to answer."""
    finish_reason: str | None = None
    """Default: `tool_calls` if there are tool calls, else `stop`."""
    usage_chunk: bool = False
    """Whether a stream ends with a chunk of usage, as with `stream_options.include_usage`."""
    done: bool = True
    """Whether a stream ends with `data: [DONE]`."""
    status: int = 200
    """HTTP status. From 300 on, the body is OpenAI's error object, unless `body` is given."""
    error: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of the error object, e.g. `{"code": "context_length_exceeded"}`."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further response headers, e.g. `{"retry-after": "20"}`."""
    body: bytes | None = None
    """The body to send with this status in place of the fields above, such as half a JSON object or HTML."""
    delay: float = 0.0
    """Seconds to wait before the answer."""
    pause: float = 0.0
    """Seconds to wait before each chunk of a stream."""
    cut_after: int | None = None
    """Number of chunks after which the connection breaks; an answer in one piece is one chunk. 0: before the body."""

    def completion(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a chat request in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": self._content(request)}
        if self.refusal is not None:
            message["refusal"] = self.refusal
        if self.tool_calls:
            message["tool_calls"] = list(self.tool_calls)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason()}
        return self._envelope(request, "chat.completion", [choice]) | {"usage": self._usage(request)}

    def chunks(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the answer to a chat request in chunks of one word."""
        kind = "chat.completion.chunk"
        words = (self._content(request) or "").split(" ")
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word if index == 0 else f" {word}"} for index, word in enumerate(words) if word or index]
        deltas += [{"refusal": self.refusal}] if self.refusal is not None else []
        deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in enumerate(self.tool_calls)]
        for delta in deltas:
            yield self._envelope(request, kind, [{"index": 0, "delta": delta, "finish_reason": None}])
        yield self._envelope(request, kind, [{"index": 0, "delta": {}, "finish_reason": self._finish_reason()}])
        if self.usage_chunk:
            yield self._envelope(request, kind, []) | {"usage": self._usage(request)}

    def _content(self, request: Mapping[str, Any]) -> str | None:
        if self.tool_calls or self.refusal is not None:
            return self.text
        return _echo(request) if self.text is None else self.text

    def _finish_reason(self) -> str:
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")

    def _usage(self, request: Mapping[str, Any]) -> dict[str, int]:
        asked = sum(len(json.dumps(message).split()) for message in request.get("messages") or ())
        return usage_json(asked, len((self._content(request) or "").split()))

    @staticmethod
    def _envelope(request: Mapping[str, Any], kind: str, choices: list[Any]) -> dict[str, Any]:
        model = str(request.get("model") or _MODEL)
        return {"id": "chatcmpl-scripted", "object": kind, "created": 1, "model": model, "choices": choices}


def _echo(request: Mapping[str, Any]) -> str:
    messages = cast(list[dict[str, Any]], request.get("messages") or [{}])
    content = messages[-1].get("content")
    return f"You said: {content if isinstance(content, str) else json.dumps(content)}"


@dataclass
class Received:
    """A request that the server received."""

    path: str
    headers: Mapping[str, str]
    json: dict[str, Any]
    hung_up: bool = False
    """Whether the client disconnected before the answer was complete."""


class _Answer(Response):
    """Sends a `Reply`. Plain ASGI, because a reply may break the connection."""

    def __init__(self, reply: Reply, received: Received):
        self._reply = reply
        self._received = received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply, streams = self._reply, bool(self._received.json.get("stream"))
        if await self._client_leaves(reply.delay, receive):
            return
        kind = "text/event-stream" if streams and reply.status == 200 else "application/json"
        headers = {"content-type": kind, **reply.headers}
        await send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            }
        )
        for index, piece in enumerate(self._pieces(streams)):
            if await self._client_leaves(reply.pause, receive):
                return
            if index == reply.cut_after:
                return  # uvicorn closes the connection if the application returns before the body is complete
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _pieces(self, streams: bool) -> Iterator[bytes]:
        reply, request = self._reply, self._received.json
        if reply.body is not None:
            yield reply.body
        elif reply.status >= 300:
            error = {"message": f"scripted status {reply.status}", "type": "scripted_error", **reply.error}
            yield json.dumps({"error": error}).encode()
        elif streams:
            for chunk in reply.chunks(request):
                yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
            if reply.done:
                yield b"data: [DONE]\n\n"
        else:
            yield json.dumps(reply.completion(request)).encode()

    async def _client_leaves(self, seconds: float, receive: Receive) -> bool:
        """Wait, and return whether the client has disconnected meanwhile."""
        if not seconds:
            return False
        try:
            async with asyncio.timeout(seconds):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return False
        self._received.hung_up = True
        return True


class OpenAIServer:
    """An OpenAI-compatible test server that accepts any key. `with OpenAIServer() as server:` starts and stops it.

    Each request uses up one of the replies given to `script`; without any, the answer is `Reply()`.

    Args:
        port: the port to listen on; 0 for a free one.
        host: the address to listen on.

    Attributes:
        base_url: the URL for clients.
        received: the requests so far.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1"):
        self.received: list[Received] = []
        self._script: list[Reply] = []
        self._socket = socket.create_server((host, port))
        self.base_url = f"http://{host}:{self._socket.getsockname()[1]}/v1"
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.serve, daemon=True)

    def script(self, *replies: Reply) -> None:
        """Answer the next requests with these replies, one each."""
        self._script.extend(replies)

    def reset(self) -> None:
        """Clear the script and the received requests."""
        self._script.clear()
        self.received.clear()

    def serve(self) -> None:
        """Serve until `stop` is called or, in the main thread, until interrupted."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Stop serving, and close open connections."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> "OpenAIServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _chat(self, request: Request) -> Response:
        body = cast(dict[str, Any], await request.json())
        received = Received(request.url.path, dict(request.headers), body)
        self.received.append(received)
        return _Answer(self._script.pop(0) if self._script else Reply(), received)

    async def _models(self, _: Request) -> Response:
        models = {"object": "list", "data": [{"id": _MODEL, "object": "model", "created": 1, "owned_by": "nobody"}]}
        return Response(json.dumps(models), media_type="application/json")
