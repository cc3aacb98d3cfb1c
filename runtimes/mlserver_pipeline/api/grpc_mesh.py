"""Addresses of Core 2's service mesh over gRPC. MLServer itself chooses by the model's name only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from mlserver.errors import ModelNotFound
from mlserver.handlers import DataPlane
from mlserver.types import InferenceRequest, InferenceResponse, Parameters

from mlserver_chat import request_headers
from mlserver_chat.requests.streams import closing

from ..manifests.experiments import ROUTE, with_token
from .mesh import INTERNAL, RESOURCE, Choice, Mesh, pipeline_of


class MeshDataPlane:
    """Wraps MLServer's data plane so that the gRPC server also understands Core 2's addresses.

    Args:
        inner: MLServer's data plane.
        mesh: chooses the resource that answers.
    """

    def __init__(self, inner: DataPlane, mesh: Mesh):
        self._inner = inner
        self._mesh = mesh
        self._mirrored: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def model_ready(self, name: str, version: str | None = None) -> bool:
        """Return whether a model is ready, or the model that runs a pipeline of this name."""
        asked = (self._mesh.model_of(pipeline_of(name) or name) if self._mesh.is_on else None) or name
        return await self._inner.model_ready(asked, version)

    async def infer(self, payload: InferenceRequest, name: str, version: str | None = None) -> InferenceResponse:
        """Return the answer of the resource named by the metadata `seldon-model`, otherwise by `name`.

        Raises:
            MLServerError: the model failed, or (404) isn't loaded.
        """
        choice = self._choose(payload, name)
        if choice is None:
            return await self._inner.infer(payload, name, version)
        if choice.mirror:
            task = asyncio.create_task(self._mirror(payload.model_copy(deep=True), choice.mirror))
            self._mirrored.add(task)
            task.add_done_callback(self._mirrored.discard)
        return _by_way_of(choice, await self._inner.infer(payload, self._address(payload, choice.resource)))

    async def infer_stream(
        self, payloads: AsyncIterator[InferenceRequest], name: str, version: str | None = None
    ) -> AsyncIterator[InferenceResponse]:
        """Yield the same answer piece by piece. Streams are not mirrored."""
        first = await anext(payloads)
        choice = self._choose(first, name)
        if choice is not None:
            name, version = self._address(first, choice.resource), None
        async with closing(self._inner.infer_stream(_from_first(first, payloads), name, version)) as responses:
            async for response in responses:
                yield response if choice is None else _by_way_of(choice, response)

    def _choose(self, payload: InferenceRequest, name: str) -> Choice | None:
        """Return the choice, or None if MLServer would choose the same."""
        headers = request_headers(payload)
        if payload.parameters is not None and payload.parameters.headers is not None:
            # Only the mesh may set this header.
            payload.parameters.headers.pop(INTERNAL, None)
        return self._mesh.elsewhere(headers.get(RESOURCE) or name, headers.get(ROUTE, ""), name)

    def _address(self, payload: InferenceRequest, resource: str) -> str:
        """Return the name of the model to call, and note in `payload` which of its pipelines to run."""
        pipeline = pipeline_of(resource)
        model = self._mesh.model_of(pipeline) if pipeline else resource
        if model is None:
            raise ModelNotFound("".join(filter(str.isprintable, resource[:255])))
        payload.parameters = payload.parameters or Parameters()
        payload.parameters.headers = {**(payload.parameters.headers or {}), INTERNAL: resource}
        return model

    async def _mirror(self, payload: InferenceRequest, resource: str) -> None:
        # The caller gets neither the answer of a mirror nor its error.
        with suppress(Exception):
            await self._inner.infer(payload, self._address(payload, resource))


async def _from_first(
    first: InferenceRequest, others: AsyncIterator[InferenceRequest]
) -> AsyncIterator[InferenceRequest]:
    yield first
    async for other in others:
        yield other


def _by_way_of(choice: Choice, response: InferenceResponse) -> InferenceResponse:
    """Return the response with the header that names the chosen resource."""
    response.parameters = response.parameters or Parameters()
    headers = response.parameters.headers or {}
    response.parameters.headers = {**headers, ROUTE: with_token(str(headers.get(ROUTE, "")), choice.token)}
    return response
