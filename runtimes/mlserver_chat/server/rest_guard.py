"""The REST guard: bounds bodies before they are parsed, and notices clients that hang up.

MLServer reads a body of any size, unpacks gzip without a limit, waits for a slow body for ever, and works on for a
client that has gone. This ASGI application stands in front of MLServer's own and does these four things.
"""

import asyncio
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ChatError, InvalidInput, RequestTimeout, RequestTooLarge
from ..limits import server_limits
from ..requests.caller import Caller, caller_scope
from ..requests.headers import check_unique_headers
from .v2_json import check_v2_request

Headers = Sequence[tuple[bytes, bytes]]

_CORE2_GATEWAY = re.compile(r"/v2/pipelines/[^/]+/infer")
"""The address at which errors are answered as Core 2's pipeline gateway does."""
_SMALL = 64 * 1024
"""Bytes of gzip that are unpacked on the event loop."""
_WATCH_AFTER = 0.1
"""Seconds after which a request's client is watched. Most requests are answered sooner, and need no watcher."""


class _HungUp(Exception):
    """The client went away while it sent its body."""


class RestGuard:
    """An ASGI application around MLServer's.

    A body over the limit is answered 413, also where only its unpacked form is; one that takes too long is answered
    408. Both close the connection. The application gets the whole body, unpacked.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            check_unique_headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
            body = None
            if _has_body(scope):
                scope, body = await _unpacked(scope, await _read_body(scope, receive))
                if _path(scope).startswith("/v2/"):
                    check_v2_request(body)
        except _HungUp:
            return
        except ChatError as error:
            await _refuse(scope, send, error)
            return
        if body is None:
            await self.app(scope, receive, send)
        else:
            await _Exchange(receive, send, body).run(self.app, scope)


class _Exchange:
    """One request that the application answers, and the watch over its client."""

    def __init__(self, receive: Receive, send: Send, body: bytes):
        self._receive = receive
        self._send = send
        self._body: bytes | None = body
        self._caller = Caller()
        self._watching: asyncio.Task[None] | None = None
        self._is_answered = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let `app` answer."""
        timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, self._watch)
        try:
            with caller_scope(self._caller):
                await app(scope, self._next_message, self._forward)
        finally:
            timer.cancel()
            if self._watching is not None:
                self._watching.cancel()

    async def _next_message(self) -> Message:
        """The application's `receive`: the body, then, once the client is gone, the disconnect."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.shield(self._watch())
        return {"type": "http.disconnect"}

    async def _forward(self, message: Message) -> None:
        """The application's `send`."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_answered = True
        await self._send(message)

    def _watch(self) -> asyncio.Task[None]:
        """The one task that reads what comes behind the body."""
        if self._watching is None:
            self._watching = asyncio.ensure_future(self._wait_for_disconnect())
        return self._watching

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # Servers report a disconnect after the answer too. What still runs then, runs on.
        if not self._is_answered:
            self._caller.leave()


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """The body as it was sent.

    Raises:
        RequestTooLarge, RequestTimeout: over a limit of the server. _HungUp: the client went away.
    """
    limits = server_limits()
    declared = _header(scope["headers"], b"content-length")
    if declared is not None and declared.isdigit() and int(declared[:20]) > limits.max_request_bytes:
        raise RequestTooLarge(limits.max_request_bytes)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.request_timeout):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _HungUp
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > limits.max_request_bytes:
                    raise RequestTooLarge(limits.max_request_bytes)
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError as error:
        raise RequestTimeout(limits.request_timeout) from error


async def _unpacked(scope: Scope, body: bytes) -> tuple[Scope, bytes]:
    """The request without gzip. A body that isn't gzip stays as it is; the application refuses it.

    Raises:
        RequestTooLarge: the unpacked body is over the limit.
    """
    if _header(scope["headers"], b"content-encoding") != b"gzip":
        return scope, body
    most = server_limits().max_request_bytes
    try:
        unpacked = _gunzip(body, most) if len(body) < _SMALL else await asyncio.to_thread(_gunzip, body, most)
    except (OSError, EOFError, zlib.error):
        return scope, body
    if len(unpacked) > most:
        raise RequestTooLarge(most)
    kept = [(name, value) for name, value in scope["headers"] if name not in (b"content-encoding", b"content-length")]
    headers = [*kept, (b"content-length", str(len(unpacked)).encode("ascii"))]
    return {**scope, "headers": headers}, unpacked


def _gunzip(body: bytes, most: int) -> bytes:
    """Up to one byte more than `most`, which tells that there is more."""
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as unpacking:
        return unpacking.read(most + 1)


def _header(headers: Headers, name: bytes) -> bytes | None:
    return next((value for each, value in headers if each == name), None)


async def _refuse(scope: Scope, send: Send, error: ChatError) -> None:
    """Answer without reading the body to its end, so the connection can't be used again."""
    status, media_type, body = int(error.status_code), b"application/json", json.dumps({"error": str(error)})
    if isinstance(error, InvalidInput) and _CORE2_GATEWAY.fullmatch(_path(scope)):
        status, media_type, body = 400, b"text/plain; charset=utf-8", str(error)
    headers = [(b"content-type", media_type), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode("utf-8"), "more_body": False})


def retry_after_headers(seconds: float | None) -> dict[str, str]:
    """The header `Retry-After` of an answer, in whole seconds."""
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
