"""Finds the server and the other models of this process. MLServer gives a model no reference to them.

This is the only module that uses private names of MLServer. `tests/mlserver_chat/test_siblings.py` tests them against
the pinned version.
"""

import asyncio
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
from fastapi import APIRouter, FastAPI
from mlserver import MLModel, MLServer, ModelSettings
from mlserver.errors import ModelNotFound
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import STATUS_CODE_MAPPING
from mlserver.handlers import DataPlane
from mlserver.parallel.worker import Worker
from mlserver.registry import MultiModelRegistry
from mlserver.tracing import get_tracer_provider
from opentelemetry import trace
from opentelemetry.trace import TracerProvider

from ..errors import InvalidInput, RequestTooLarge, SettingsError
from ..files import UnreadableFile, find_files, read_json
from ..settings import settings_folder

_POLL_SECONDS = 0.05


def find_registry() -> MultiModelRegistry | None:
    """Return the registry that is constructing the caller's model, or None outside MLServer.

    Call it in `__init__`. MLServer 1.7.1 constructs models inside `MultiModelRegistry.load`, in the server and in its
    worker processes, so a frame of the call stack holds the registry.
    """
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, MultiModelRegistry):
            return owner
        frame = frame.f_back
    return None


def find_server(registry: MultiModelRegistry | None) -> MLServer | None:
    """Return the server of a registry, or None in a worker process, whose registry belongs to no server."""
    # The server registers its own methods to be called when a model loads.
    hooks = registry._on_model_load if registry else []  # pyright: ignore[reportPrivateUsage]
    owners = (getattr(hook, "__self__", None) for hook in hooks)
    return next((owner for owner in owners if isinstance(owner, MLServer)), None)


def data_plane_of(server: MLServer) -> DataPlane:
    """Return the data plane, which hands requests to models."""
    return server._data_plane  # pyright: ignore[reportPrivateUsage]


def rest_app_of(server: MLServer) -> FastAPI:
    """Return the application of the REST server."""
    return server._rest_server._app  # pyright: ignore[reportPrivateUsage]


def rest_connections_of(server: MLServer) -> list[Any]:
    """Return the open HTTP connections as uvicorn keeps them. There are none before the REST server starts."""
    uvicorn_server = getattr(server._rest_server, "_server", None)  # pyright: ignore[reportPrivateUsage]
    return list(uvicorn_server.server_state.connections) if uvicorn_server is not None else []


def rest_router_of(server: MLServer) -> APIRouter:
    """Return the router of the REST server."""
    return rest_app_of(server).router


def guard_grpc_messages(
    check: Callable[[pb.ModelInferRequest, Iterable[tuple[str, str | bytes]]], None],
) -> None:
    """Check the messages of inference calls before MLServer converts them. Only the first call has an effect.

    MLServer answers RESOURCE_EXHAUSTED if `check` raises `RequestTooLarge`.

    Args:
        check: gets a message and its metadata, and raises to refuse the message.
    """
    STATUS_CODE_MAPPING[RequestTooLarge.status] = grpc.StatusCode.RESOURCE_EXHAUSTED
    convert: Any = InferenceServicer._InsertHeaders  # pyright: ignore[reportPrivateUsage]
    if hasattr(convert, "__wrapped__"):
        return

    @functools.wraps(convert)
    def checked(self: InferenceServicer, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> Any:
        check(request, context.invocation_metadata())
        try:
            return convert(self, request, context)
        except Exception as error:
            raise InvalidInput(
                "the message can't be read; expected known datatypes, parameters of the right type, "
                "and raw contents that fill the shapes"
            ) from error

    InferenceServicer._InsertHeaders = checked  # pyright: ignore[reportPrivateUsage]


def serve_grpc_from(server: MLServer, data_plane: Any) -> None:
    """Replace the data plane of the gRPC server, from the next request on."""
    grpc_server = server._grpc_server  # pyright: ignore[reportPrivateUsage]
    # MLServer creates the servicer when the server starts, before or after a model loads.
    for holder in (grpc_server, getattr(grpc_server, "_inference_servicer", None)):
        if holder is not None:
            holder._data_plane = data_plane  # pyright: ignore[reportPrivateUsage]


def tracer_provider_of(server: MLServer) -> TracerProvider:
    """Return the provider of the server's `tracing_server`, if set, otherwise OpenTelemetry's global provider."""
    settings = server._settings  # pyright: ignore[reportPrivateUsage]
    return get_tracer_provider(settings) if settings.tracing_server else trace.get_tracer_provider()


def in_worker() -> bool:
    """Whether this is one of MLServer's worker processes.

    In a worker, `load` must not wait for another model, because MLServer 1.7.1 loads a worker's models in sequence.
    """
    return isinstance(multiprocessing.current_process(), Worker)


def check_in_repository(name: str, owner: ModelSettings) -> None:
    """Check that a model's repository contains another model.

    Args:
        name: the other model.
        owner: the settings of the model that calls it.

    Raises:
        SettingsError: the repository has no such model.
    """
    if name not in repository_models(owner):
        raise SettingsError(
            f"model '{owner.name}' calls '{name}', which its model repository lacks; add it or give a URI"
        )


async def wait_for_model(registry: MultiModelRegistry, name: str, owner: ModelSettings, timeout: float) -> MLModel:
    """Wait until a model is ready, and return it.

    Args:
        registry: the registry of this process.
        name: the model to wait for.
        owner: the settings of the model that waits.
        timeout: seconds.

    Raises:
        SettingsError: the repository has no such model, or it isn't ready in time.
    """
    deadline = time.monotonic() + timeout
    if await find_model(registry, name) is None:
        check_in_repository(name, owner)
    while True:
        model = await find_model(registry, name)
        if model is not None and model.ready:
            return model
        if time.monotonic() > deadline:
            raise SettingsError(f"model '{owner.name}' waited {timeout:g} s for '{name}', which is not ready")
        await asyncio.sleep(_POLL_SECONDS)


async def find_model(registry: MultiModelRegistry, name: str) -> MLModel | None:
    """Return a model, ready or not, or None if it isn't registered."""
    try:
        return await registry.get_model(name)
    except ModelNotFound:
        return None


def repository_models(owner: ModelSettings) -> set[str]:
    """Return the names of all models in the repository of the model with settings `owner`."""
    names: set[str] = set()
    for path in find_files(settings_folder(owner).parent).named("model-settings.json"):
        name = _name_of(path)
        if name:
            names.add(name)
    return names


def _name_of(path: Path) -> str | None:
    """Return the model's name. MLServer names a model without a name after its folder."""
    try:
        name = read_json(path).get("name") or path.parent.name
    except (UnreadableFile, AttributeError):
        return None
    return name if isinstance(name, str) else None
