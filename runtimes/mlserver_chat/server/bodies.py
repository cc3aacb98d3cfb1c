"""Reads the body of a request within the server's limits, and unpacks it."""

import asyncio
import gzip
import io
import zlib
from collections.abc import Mapping

from starlette.types import Receive, Scope

from ..errors import RequestTimeout, RequestTooLarge
from ..limits import ServerLimits
from .timers import CoarseTimers

_SMALL = 64 * 1024
"""Bytes of gzip that are unpacked on the event loop."""
_GZIP = (b"content-encoding", b"gzip")
"""The header on which MLServer unpacks a body, among others of its name too."""


def is_packed(scope: Scope) -> bool:
    """Whether MLServer would unpack the body."""
    return _GZIP in scope["headers"]


class HungUp(Exception):
    """The client went away while it sent its body."""


class BodyReader:
    """Reads bodies.

    Args:
        limits: the limits of the server.
    """

    def __init__(self, limits: ServerLimits):
        self._most = limits.max_request_bytes
        self._timeout = limits.request_timeout
        self._timers = CoarseTimers(limits.request_timeout)

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the body as it was sent.

        Raises:
            RequestTooLarge: the body has, or announces, too many bytes.
            RequestTimeout: it did not arrive in time.
            HungUp: the client went away.
        """
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > self._most:
            raise RequestTooLarge(self._most)
        reading: asyncio.Task[object] | None = asyncio.current_task()
        assert reading is not None
        timer = self._timers.start(reading.cancel)
        try:
            return await self._read(receive)
        except asyncio.CancelledError:
            if self._timers.is_pending(timer) or reading.uncancel() > 0:
                raise
            raise RequestTimeout(self._timeout) from None
        finally:
            self._timers.cancel(timer)

    async def _read(self, receive: Receive) -> bytes:
        body = b""
        pieces: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HungUp
            body = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(body)
            if size > self._most:
                raise RequestTooLarge(self._most)
            if more or pieces:
                pieces.append(body)
        return b"".join(pieces) if pieces else body

    async def unpack(self, scope: Scope, body: bytes) -> tuple[Scope, bytes]:
        """Return a request for which `is_packed` without gzip. A body that isn't gzip stays; MLServer refuses it.

        Raises:
            RequestTooLarge: the unpacked body is over the limit.
        """
        most = self._most
        try:
            unpacked = _gunzip(body, most) if len(body) < _SMALL else await asyncio.to_thread(_gunzip, body, most)
        except (OSError, EOFError, zlib.error):
            return scope, body
        if len(unpacked) > most:
            raise RequestTooLarge(most)
        headers = [each for each in scope["headers"] if each[0] not in (b"content-encoding", b"content-length")]
        return {**scope, "headers": [*headers, (b"content-length", b"%d" % len(unpacked))]}, unpacked


def _gunzip(body: bytes, most: int) -> bytes:
    """Unpack up to one byte more than `most`, which tells that there is more."""
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as unpacking:
        return unpacking.read(most + 1)
