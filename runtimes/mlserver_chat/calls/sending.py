"""Tells whether an HTTP request was sent, which decides between the errors 503 and 424."""

from collections.abc import Callable

import httpx2

NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
"""Exceptions of requests that were not sent."""


def watch_sending(request: httpx2.Request, on_sent: Callable[[], None]) -> None:
    """Call `on_sent` when the client starts to send `request` over its connection."""

    async def trace(event: str, _: object) -> None:
        if event.endswith("send_request_headers.started"):
            on_sent()

    request.extensions = {**request.extensions, "trace": trace}
