"""Addresses of Core 2's service mesh: the header `Seldon-Model`, and experiments.

Envoy chooses a model, a pipeline or an experiment by the header `seldon-model`, otherwise by the path. Both hold one of
`<model>`, `<pipeline>.pipeline` and `<experiment>.experiment`. MLServer chooses by the path, or by the model's name
over gRPC. So a route in front of MLServer's routes, and a data plane in place of MLServer's, forward such requests to
an address that MLServer knows.
"""

import asyncio
import random
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlserver_chat.requests.identity import base_name

from ..manifests.experiments import ROUTE, Experiment, Random, with_token

RESOURCE = "seldon-model"
"""The header that names a model, a pipeline or an experiment."""

INTERNAL = "seldon-internal-model"
"""The header that holds the resource chosen by the mesh. Requests from outside can't set it."""

_ADDRESS = re.compile(r"/v2/(models|pipelines)/([^/]+)/(infer|infer_stream)")
_ROUTED = "mlserver_llm.routed"
_PIPELINE = ".pipeline"


class Pipelines(NamedTuple):
    """The pipelines of one model, and the experiments loaded with them."""

    model: str
    names: Collection[str]
    experiments: Sequence[Experiment]
    core2_addressing: bool = True
    """False disables Core 2's addressing on the whole server."""


class Choice(NamedTuple):
    """The resource that answers a request."""

    resource: str
    """Name of a model, or of a pipeline followed by `.pipeline`."""
    token: str
    """The entry for the response header `x-seldon-route`."""
    mirror: str = ""
    """The resource that gets a copy of the request; empty if there is none."""
    is_split: bool = False
    """Whether an experiment made the choice."""

    @property
    def pipeline(self) -> str:
        """The pipeline, or "" for a model."""
        return pipeline_of(self.resource)


def pipeline_of(resource: str) -> str:
    """Return `p` of `p.pipeline`, or "" for another kind of resource."""
    return resource.removesuffix(_PIPELINE) if resource.endswith(_PIPELINE) else ""


class Mesh:
    """The pipelines and experiments of all pipeline models of a server.

    Args:
        draw: returns a random number from 0 to 1, which decides between candidates.
    """

    def __init__(self, draw: Random = random.random):
        self.members: list[Pipelines] = []
        self._draw = draw

    @property
    def is_on(self) -> bool:
        """Whether requests may use Core 2's addresses."""
        return all(member.core2_addressing for member in self.members)

    def choose(self, resource: str, route: str) -> Choice:
        """Choose the resource that answers a request.

        Args:
            resource: the value of the header `seldon-model`.
            route: the value of the header `x-seldon-route`, which keeps a caller on its candidate.
        """
        for experiment in (experiment for member in self.members for experiment in member.experiments):
            suffix = _PIPELINE if experiment.is_of_pipelines else ""
            if resource in (f"{experiment.metadata.name}.experiment", f"{experiment.spec.default}{suffix}"):
                chosen, mirror = experiment.choose(route, self._draw), experiment.spec.mirror
                is_mirrored = mirror is not None and experiment.is_mirrored(self._draw)
                mirrored = f"{mirror.name}{suffix}" if mirror is not None and is_mirrored else ""
                return Choice(f"{chosen}{suffix}", experiment.token(chosen), mirrored, True)
        if resource.endswith(_PIPELINE):
            return Choice(resource, f":{resource}:")
        model = resource.removesuffix(".model")
        return Choice(model, f":{model}_1:")

    def elsewhere(self, resource: str, route: str, model: str) -> Choice | None:
        """Return the choice, or None if it is `model`, to which MLServer sends the request without help.

        On Core 2 the model may be named `<model>_<n>`.
        """
        if not self.is_on:
            return None
        choice = self.choose(resource, route)
        return None if choice.resource == base_name(model) and not (choice.pipeline or choice.is_split) else choice

    def model_of(self, pipeline: str) -> str | None:
        """Return the model that runs a pipeline, or None. If there are several, the last one loaded wins."""
        return next((member.model for member in reversed(self.members) if pipeline in member.names), None)


class Target(NamedTuple):
    """The destination of a forwarded request."""

    resource: str
    path: str
    token: str
    """The entry for the response header `x-seldon-route`."""
    mirror: str = ""
    """The path for a copy of the request; empty if there is none."""


class MeshRoute(Route):
    """Matches and forwards requests that use an address of Core 2 which MLServer doesn't know.

    Args:
        router: MLServer's router, which contains this route.
        mesh: chooses the resource that answers.
    """

    def __init__(self, router: ASGIApp, mesh: Mesh):
        super().__init__("/v2/{resource:path}", endpoint=MeshRoute, name="mesh", include_in_schema=False)
        self.mesh = mesh
        self._router = router
        self._mirrored: set[asyncio.Task[None]] = set()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a request that must be forwarded, or that has a header reserved for the mesh."""
        if scope["type"] != "http" or scope.get(_ROUTED) or scope.get("method") != "POST":
            return Match.NONE, {}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", [])}
        target = self.target(scope["path"], headers.get(RESOURCE, ""), headers.get(ROUTE, ""))
        if target is None and INTERNAL in headers:
            target = Target("", scope["path"], "")
        if target is None:
            return Match.NONE, {}
        return Match.FULL, {"endpoint": MeshRoute, _ROUTED: target}

    def target(self, path: str, resource: str, route: str) -> Target | None:
        """Return the destination of a request, or None if it needs no forwarding.

        Args:
            path: the path of the request.
            resource: the value of the header `seldon-model`.
            route: the value of the header `x-seldon-route`.
        """
        address = _ADDRESS.fullmatch(path)
        if address is None:
            return None
        kind, name, verb = address.groups()
        named = f"{name}{_PIPELINE}" if kind == "pipelines" else name
        choice = self.mesh.elsewhere(resource or named, route, named)
        if choice is None:
            return None
        chosen = self._path(choice.resource, verb)
        if chosen == path and kind == "pipelines" and not choice.is_split:
            return None
        return Target(choice.resource, chosen, choice.token, choice.mirror and self._path(choice.mirror, verb))

    def _path(self, resource: str, verb: str) -> str:
        """Return the path of a resource. A pipeline streams only at the address of its model."""
        pipeline = pipeline_of(resource)
        if not pipeline:
            return f"/v2/models/{resource}/{verb}"
        model = self.mesh.model_of(pipeline)
        is_streamed = verb == "infer_stream" and model is not None
        return f"/v2/models/{model}/{verb}" if is_streamed else f"/v2/pipelines/{pipeline}/infer"

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, and add the header `x-seldon-route` to the answer."""
        target: Target = scope[_ROUTED]
        if target.mirror:
            body = await _read(receive)
            task = asyncio.create_task(self._mirror(_at(scope, target.mirror), body))
            self._mirrored.add(task)
            task.add_done_callback(self._mirrored.discard)
            receive = _replay(body, receive)

        async def send_with_route(message: Message) -> None:
            if target.token and message["type"] == "http.response.start":
                message = {**message, "headers": _with_route(message["headers"], target.token)}
            await send(message)

        await self._router(_at(scope, target.path, target.resource), receive, send_with_route)

    async def _mirror(self, scope: Scope, body: bytes) -> None:
        # The caller gets neither the answer of a mirror nor its error.
        with suppress(Exception):
            await self._router(scope, _replay(body, None), _drop)


def _at(scope: Scope, path: str, resource: str = "") -> Scope:
    """Return the scope of the request at another path. As Envoy does, a header names the chosen resource."""
    headers = [(name, value) for name, value in scope["headers"] if name != INTERNAL.encode()]
    if resource:
        headers.append((INTERNAL.encode(), resource.encode("latin-1")))
    return {**scope, "path": path, "raw_path": quote(path).encode("ascii"), "headers": headers}


def _with_route(headers: Sequence[tuple[bytes, bytes]], token: str) -> list[tuple[bytes, bytes]]:
    """Return the response's headers with the token appended to the entries of steps."""
    rest = [(name, value) for name, value in headers if name.lower() != ROUTE.encode()]
    routes = [value.decode("latin-1") for name, value in headers if name.lower() == ROUTE.encode()]
    return [*rest, (ROUTE.encode(), with_token(" ".join(routes), token).encode("latin-1"))]


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _replay(body: bytes, then: Receive | None) -> Receive:
    """Return a `receive` that delivers the body again, followed by the messages of `then`, if any."""
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
