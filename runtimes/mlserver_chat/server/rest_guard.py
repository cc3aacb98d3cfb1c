"""The REST guard: bounds requests before MLServer parses them, and notices clients that hang up.

MLServer reads a body of any size, unpacks gzip without a limit, waits for a slow body forever, and goes on working
for a client that has hung up. This ASGI application stands in front of MLServer's own and prevents all four.
"""

import json
import re

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import ChatError, InvalidInput
from ..limits import server_limits
from ..requests.headers import check_unique_headers
from .bodies import BodyReader, HungUp, is_packed
from .exchange import Exchange
from .timers import CoarseTimers
from .v2_json import SMALL_REQUEST, check_v2_request

_WATCH_AFTER = 0.1
"""Seconds after which a request's client is watched."""
_CORE2_GATEWAY = re.compile(r"/v2/pipelines/[^/]+/infer")
"""The address at which errors are answered as Core 2's pipeline gateway does."""


class RestGuard:
    """An ASGI application around MLServer's.

    A body over the limit is answered 413, packed or unpacked, and a slow one 408. Both close the connection. The
    application gets the whole body, unpacked.

    Args:
        app: MLServer's application.
    """

    def __init__(self, app: ASGIApp):
        self._app = app
        self._bodies = BodyReader(server_limits())
        self._watches = CoarseTimers(_WATCH_AFTER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope, body = await self._admit(scope, receive)
        except HungUp:
            return
        except ChatError as error:
            await _refuse(scope, send, error)
            return
        if body is None:
            await self._app(scope, receive, send)
        else:
            await Exchange(receive, send, body).run(self._app, scope, self._watches)

    async def _admit(self, scope: Scope, receive: Receive) -> tuple[Scope, bytes | None]:
        """Return the request and its body, None without one.

        Raises:
            ChatError: the request is refused. HungUp: the client went away.
        """
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            check_unique_headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            return scope, None
        body = await self._bodies.read(headers, receive)
        if is_packed(scope):
            scope, body = await self._bodies.unpack(scope, body)
        if len(body) > SMALL_REQUEST and _path(scope).startswith("/v2/"):
            check_v2_request(body)
        return scope, body


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


async def _refuse(scope: Scope, send: Send, error: ChatError) -> None:
    """Answer without reading the body to its end, so the connection can't be used again."""
    status, media_type, body = int(error.status_code), b"application/json", json.dumps({"error": str(error)})
    if isinstance(error, InvalidInput) and _CORE2_GATEWAY.fullmatch(_path(scope)):
        status, media_type, body = 400, b"text/plain; charset=utf-8", str(error)
    headers = [(b"content-type", media_type), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode("utf-8"), "more_body": False})
