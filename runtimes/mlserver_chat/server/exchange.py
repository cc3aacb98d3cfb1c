"""One request that MLServer answers, and the watch over its client."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..requests.caller import Caller, caller_scope
from .timers import CoarseTimers


class Exchange:
    """A request whose body has been read.

    Args:
        receive: tells when the client hangs up.
        send: sends the answer.
        body: the request's body.
    """

    __slots__ = ("_body", "_caller", "_is_answered", "_receive", "_send", "_watching")

    def __init__(self, receive: Receive, send: Send, body: bytes):
        self._receive = receive
        self._send = send
        self._body: bytes | None = body
        self._caller = Caller()
        self._watching: asyncio.Task[None] | None = None
        self._is_answered = False

    async def run(self, app: ASGIApp, scope: Scope, timers: CoarseTimers) -> None:
        """Let `app` answer.

        Args:
            app: the application.
            scope: the request's ASGI scope.
            timers: say when to begin to watch the client. Most requests are answered sooner.
        """
        timer = timers.start(self._watch)
        try:
            with caller_scope(self._caller):
                await app(scope, self._next_message, self._forward)
        finally:
            timers.cancel(timer)
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
        """Return the one task that reads what follows the body, after starting it if necessary."""
        if self._watching is None:
            self._watching = asyncio.ensure_future(self._wait_for_disconnect())
        return self._watching

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # Servers report a disconnect after the answer too. Work that goes on after the answer isn't cancelled.
        if not self._is_answered:
            self._caller.leave()
