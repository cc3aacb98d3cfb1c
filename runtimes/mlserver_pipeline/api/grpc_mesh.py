"""The mesh's addresses over gRPC, where the model's name is all that MLServer looks at."""

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
    """MLServer's data plane, which also knows the names of Core 2's mesh; its gRPC server gets it in place of `inner`.

    Args:
        inner: MLServer's own.
        mesh: knows who answers.
    """

    def __init__(self, inner: DataPlane, mesh: Mesh):
        self._inner = inner
        self._mesh = mesh
        self._mirrored: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def model_ready(self, name: str, version: str | None = None) -> bool:
        """Whether a model is ready, or the one that answers for a pipeline of this name."""
        asked = (self._mesh.model_of(pipeline_of(name) or name) if self._mesh.is_on else None) or name
        return await self._inner.model_ready(asked, version)

    async def infer(self, payload: InferenceRequest, name: str, version: str | None = None) -> InferenceResponse:
        """The answer of what the metadata `seldon-model`, else `name`, stands for.

        Raises:
            MLServerError: as MLServer's; 404 for a pipeline that isn't loaded.
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
        """The same, piece by piece. Streams are not mirrored."""
        first = await anext(payloads)
        choice = self._choose(first, name)
        if choice is not None:
            name, version = self._address(first, choice.resource), None
        async with closing(self._inner.infer_stream(_from_first(first, payloads), name, version)) as responses:
            async for response in responses:
                yield response if choice is None else _by_way_of(choice, response)

    def _choose(self, payload: InferenceRequest, name: str) -> Choice | None:
        """Who answers; None when MLServer would ask the same."""
        headers = request_headers(payload)
        if payload.parameters is not None and payload.parameters.headers is not None:
            # Only the mesh may set it.
            payload.parameters.headers.pop(INTERNAL, None)
        return self._mesh.elsewhere(headers.get(RESOURCE) or name, headers.get(ROUTE, ""), name)

    def _address(self, payload: InferenceRequest, resource: str) -> str:
        """The name of the model to ask; `payload` then says which of its pipelines is meant."""
        pipeline = pipeline_of(resource)
        model = self._mesh.model_of(pipeline) if pipeline else resource
        if model is None:
            raise ModelNotFound("".join(filter(str.isprintable, resource[:255])))
        payload.parameters = payload.parameters or Parameters()
        payload.parameters.headers = {**(payload.parameters.headers or {}), INTERNAL: resource}
        return model

    async def _mirror(self, payload: InferenceRequest, resource: str) -> None:
        # Nobody waits for a mirror's answer, nor for its error.
        with suppress(Exception):
            await self._inner.infer(payload, self._address(payload, resource))


async def _from_first(
    first: InferenceRequest, others: AsyncIterator[InferenceRequest]
) -> AsyncIterator[InferenceRequest]:
    yield first
    async for other in others:
        yield other


def _by_way_of(choice: Choice, response: InferenceResponse) -> InferenceResponse:
    """The response with the header that says who answered."""
    response.parameters = response.parameters or Parameters()
    headers = response.parameters.headers or {}
    response.parameters.headers = {**headers, ROUTE: with_token(str(headers.get(ROUTE, "")), choice.token)}
    return response
