"""Addresses as Core 2's mesh has them: the header `Seldon-Model`, and experiments.

Envoy picks a model, a pipeline or an experiment by the header `seldon-model` (`<model>`, `<pipeline>.pipeline`,
`<experiment>.experiment`), else by the path, in which the same names may stand. MLServer looks at the path only, so
this route stands before its own and sends such requests on to the address that MLServer knows.
"""

import asyncio
import random
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .experiments import ROUTE, Experiment, Random

_ADDRESS = re.compile(r"/v2/(models|pipelines)/([^/]+)/(infer|infer_stream)")
_ROUTED = "mlserver_llm.routed"


class Target(NamedTuple):
    """Where a request is sent."""

    path: str
    token: str
    """What `x-seldon-route` says of it."""
    mirror: str = ""
    """The address of the mirror, if this request is mirrored."""


class MeshRoute(Route):
    """Matches requests that are addressed in Core 2's way and not in MLServer's.

    Args:
        router: MLServer's routes, this one among them.
        pipelines: the pipelines that are answered for.
        experiments: those that are honoured.
        draw: decides between candidates.
    """

    def __init__(
        self,
        router: ASGIApp,
        pipelines: Collection[str],
        experiments: Iterable[Experiment],
        draw: Random = random.random,
    ):
        super().__init__("/v2/{resource:path}", endpoint=MeshRoute, name="mesh", include_in_schema=False)
        self._router = router
        self._pipelines = pipelines
        self._experiments = list(experiments)
        self._draw = draw
        self._mirrored: set[asyncio.Task[None]] = set()

    def __eq__(self, other: object) -> bool:
        """Only itself: Starlette calls routes of one path equal, and removing one would remove another pipeline's."""
        return self is other

    __hash__ = Route.__hash__

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """FULL for a request that has to be sent elsewhere."""
        if scope["type"] != "http" or scope.get(_ROUTED) or scope.get("method") != "POST":
            return Match.NONE, {}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", [])}
        target = self.target(scope["path"], headers.get("seldon-model", ""), headers.get(ROUTE, ""))
        if target is None:
            return Match.NONE, {}
        return Match.FULL, {"endpoint": MeshRoute, _ROUTED: target}

    def target(self, path: str, resource: str, route: str) -> Target | None:
        """Where a request goes, by its path and the headers `seldon-model` and `x-seldon-route`; None: no change."""
        address = _ADDRESS.fullmatch(path)
        if address is None:
            return None
        kind, name, verb = address.groups()
        resource = resource or (f"{name}.pipeline" if kind == "pipelines" else name)
        for experiment in self._experiments:
            suffix = ".pipeline" if experiment.is_of_pipelines else ""
            if resource in (f"{experiment.metadata.name}.experiment", f"{experiment.spec.default}{suffix}"):
                return self._split(experiment, verb, route)
        plain = resource.removesuffix(".pipeline")
        if plain != resource:
            target = Target(_pipeline(plain), f":{plain}.pipeline:") if plain in self._pipelines else None
        else:
            plain = resource.removesuffix(".model")
            target = Target(f"/v2/models/{plain}/{verb}", f":{plain}_1:")
        return None if target is None or target.path == path else target

    def _split(self, experiment: Experiment, verb: str, route: str) -> Target:
        def address(name: str) -> str:
            return _pipeline(name) if experiment.is_of_pipelines else f"/v2/models/{name}/{verb}"

        chosen = experiment.choose(route, self._draw)
        mirror = experiment.spec.mirror
        mirrored = address(mirror.name) if mirror is not None and experiment.is_mirrored(self._draw) else ""
        return Target(address(chosen), experiment.token(chosen), mirrored)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request on, and say in `x-seldon-route` where it went."""
        target: Target = scope[_ROUTED]
        if target.mirror:
            body = await _read(receive)
            task = asyncio.create_task(self._mirror(_at(scope, target.mirror), body))
            self._mirrored.add(task)
            task.add_done_callback(self._mirrored.discard)
            receive = _replay(body, receive)

        async def send_with_route(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _with_route(message["headers"], target.token)}
            await send(message)

        await self._router(_at(scope, target.path), receive, send_with_route)

    async def _mirror(self, scope: Scope, body: bytes) -> None:
        # Nobody waits for a mirror's answer, nor for its error.
        with suppress(Exception):
            await self._router(scope, _replay(body, None), _drop)


def _pipeline(name: str) -> str:
    return f"/v2/pipelines/{name}/infer"


def _at(scope: Scope, path: str) -> Scope:
    return {**scope, "path": path, "raw_path": quote(path).encode("ascii")}


def _with_route(headers: Iterable[tuple[bytes, bytes]], token: str) -> list[tuple[bytes, bytes]]:
    """The response's headers, with the token behind those that steps have added."""
    rest = [(name, value) for name, value in headers if name.lower() != ROUTE.encode()]
    routes = [value.decode("latin-1") for name, value in headers if name.lower() == ROUTE.encode()]
    route = " ".join(routes)
    whole = route if token in route else f"{route} {token}".strip()
    return [*rest, (ROUTE.encode(), whole.encode("latin-1"))]


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _replay(body: bytes, then: Receive | None) -> Receive:
    """A request's body once more, and after it what `then` receives; without it nothing."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if pending:
            return pending.pop()
        if then is None:
            return await asyncio.get_running_loop().create_future()
        return await then()

    return receive


async def _drop(_: Any) -> None:
    return
