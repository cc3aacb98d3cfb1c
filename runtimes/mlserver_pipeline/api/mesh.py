"""Addresses as Core 2's mesh has them: the header `Seldon-Model`, and experiments.

Envoy picks a model, a pipeline or an experiment by the header `seldon-model` (`<model>`, `<pipeline>.pipeline`,
`<experiment>.experiment`), else by the path, in which the same names may stand; the header wins. MLServer looks at the
path, over gRPC at the model's name. So a route stands before its own, and over gRPC another data plane in the place of
its own, and both send such requests on to the address that MLServer knows.
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
"""The header that says which resource the mesh has chosen."""

_ADDRESS = re.compile(r"/v2/(models|pipelines)/([^/]+)/(infer|infer_stream)")
_ROUTED = "mlserver_llm.routed"
_PIPELINE = ".pipeline"


class Pipelines(NamedTuple):
    """The pipelines of one model, and the experiments that were loaded with them."""

    model: str
    names: Collection[str]
    experiments: Sequence[Experiment]
    core2_addressing: bool = True
    """False switches Core 2's addressing off for the whole server."""


class Choice(NamedTuple):
    """Who answers a request."""

    resource: str
    """A model, or a pipeline with `.pipeline` behind its name."""
    token: str
    """What `x-seldon-route` says of it."""
    mirror: str = ""
    """The resource that gets a copy, if this request is mirrored."""
    is_split: bool = False
    """Whether an experiment has chosen."""

    @property
    def pipeline(self) -> str:
        """The pipeline; "" for a model."""
        return pipeline_of(self.resource)


def pipeline_of(resource: str) -> str:
    """`p` of `p.pipeline`; "" for a resource of another kind."""
    return resource.removesuffix(_PIPELINE) if resource.endswith(_PIPELINE) else ""


class Mesh:
    """The pipelines and experiments of all pipeline models of a server.

    Args:
        draw: decides between candidates.
    """

    def __init__(self, draw: Random = random.random):
        self.members: list[Pipelines] = []
        self._draw = draw

    @property
    def is_on(self) -> bool:
        """Whether requests may be addressed in Core 2's way."""
        return all(member.core2_addressing for member in self.members)

    def choose(self, resource: str, route: str) -> Choice:
        """Who answers for `resource`, a value of the header `seldon-model`; `route` is that of `x-seldon-route`."""
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
        """`choose`; None when it is just `model`, whom MLServer asks anyway. On Core 2 that is called `<model>_<n>`."""
        if not self.is_on:
            return None
        choice = self.choose(resource, route)
        return None if choice.resource == base_name(model) and not (choice.pipeline or choice.is_split) else choice

    def model_of(self, pipeline: str) -> str | None:
        """The model that answers for a pipeline; None when nobody does. The one that was loaded last counts."""
        return next((member.model for member in reversed(self.members) if pipeline in member.names), None)


class Target(NamedTuple):
    """Where a request is sent."""

    resource: str
    path: str
    token: str
    """What `x-seldon-route` says of it."""
    mirror: str = ""
    """The address of the mirror, if this request is mirrored."""


class MeshRoute(Route):
    """Matches requests that are addressed in Core 2's way and not in MLServer's.

    Args:
        router: MLServer's routes, this one among them.
        mesh: knows who answers.
    """

    def __init__(self, router: ASGIApp, mesh: Mesh):
        super().__init__("/v2/{resource:path}", endpoint=MeshRoute, name="mesh", include_in_schema=False)
        self.mesh = mesh
        self._router = router
        self._mirrored: set[asyncio.Task[None]] = set()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """FULL for a request that has to be sent elsewhere, or that bears a header which only the mesh may set."""
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
        """Where a request goes, by its path and the headers `seldon-model` and `x-seldon-route`; None: no change."""
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
        """A pipeline streams only at the address of its model."""
        pipeline = pipeline_of(resource)
        if not pipeline:
            return f"/v2/models/{resource}/{verb}"
        model = self.mesh.model_of(pipeline)
        is_streamed = verb == "infer_stream" and model is not None
        return f"/v2/models/{model}/{verb}" if is_streamed else f"/v2/pipelines/{pipeline}/infer"

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
            if target.token and message["type"] == "http.response.start":
                message = {**message, "headers": _with_route(message["headers"], target.token)}
            await send(message)

        await self._router(_at(scope, target.path, target.resource), receive, send_with_route)

    async def _mirror(self, scope: Scope, body: bytes) -> None:
        # Nobody waits for a mirror's answer, nor for its error.
        with suppress(Exception):
            await self._router(scope, _replay(body, None), _drop)


def _at(scope: Scope, path: str, resource: str = "") -> Scope:
    """The request at another address, marked as Envoy marks it with the resource that was chosen."""
    headers = [(name, value) for name, value in scope["headers"] if name != INTERNAL.encode()]
    if resource:
        headers.append((INTERNAL.encode(), resource.encode("latin-1")))
    return {**scope, "path": path, "raw_path": quote(path).encode("ascii"), "headers": headers}


def _with_route(headers: Sequence[tuple[bytes, bytes]], token: str) -> list[tuple[bytes, bytes]]:
    """The response's headers, with the token behind those that steps have added."""
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
