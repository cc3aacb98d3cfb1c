"""Calls steps that other V2 servers serve."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from mlserver_chat import ChatError, SettingsError
from mlserver_chat.requests.deadline import Deadline

from ..engine.errors import RpcFailed
from ..engine.messages import StepMessage
from ..engine.streaming import Chunk
from .local import LLM_OUTPUT, SameProcessSteps
from .over_grpc import GrpcServer
from .over_rest import RestServer

logger = logging.getLogger("mlserver.pipeline")

_METADATA_SECONDS = 5.0
"""Seconds to wait for the metadata of a model."""


class RemoteServer(Protocol):
    """Another server that has steps."""

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step; the engine's `Call`."""
        ...

    def stream(self, step: str, message: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """Call a step and read its answer as it comes; the engine's `StreamCall`."""
        ...

    async def declared_outputs(self, step: str) -> list[str]:
        """The names of the outputs that the step's model declares."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def open_server(uri: str, timeout: float, max_bytes: int) -> RemoteServer:
    """A server by its URI: `grpc://host:port`, or the base URL of its REST API.

    Args:
        uri: where it is.
        timeout: seconds for one call.
        max_bytes: most bytes of an answer, and of a chunk of a stream.
    """
    return GrpcServer(uri, max_bytes) if uri.startswith("grpc://") else RestServer(uri, timeout, max_bytes)


async def is_remote_llm(server: RemoteServer, step: str) -> bool:
    """Whether the step's model declares `output_all`, as LLM steps do. A server that doesn't say counts as no."""
    try:
        async with Deadline.after(_METADATA_SECONDS).enforced():
            return LLM_OUTPUT in await server.declared_outputs(step)
    except (ChatError, RpcFailed, TimeoutError):
        logger.warning("no metadata for step '%s' from its server, so it is called without streaming", step)
        return False


class MixedSteps:
    """Calls some steps on other servers and the rest in this process."""

    def __init__(self, remote: Mapping[str, RemoteServer], here: SameProcessSteps):
        self._remote = remote
        self._here = here

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step; the engine's `Call`."""
        return await self._remote.get(step, self._here)(step, message, headers)

    def stream(self, step: str, message: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """Call a step and read its answer as it comes; the engine's `StreamCall`."""
        return self._remote.get(step, self._here).stream(step, message, headers)

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(server.aclose() for server in set(self._remote.values())))


def remote_steps(
    models: str | Mapping[str, str], steps: Sequence[str], timeout: float, max_bytes: int
) -> dict[str, RemoteServer]:
    """The servers of the `steps` that the setting `models` puts elsewhere; one connection for each server.

    Raises:
        SettingsError: a URI that is neither http nor gRPC, or a name that is no step.
    """
    uris = dict.fromkeys(steps, models) if isinstance(models, str) else models
    for step, uri in uris.items():
        if not uri.startswith(("http://", "https://", "grpc://")):
            raise SettingsError(f"'models' has a URI for '{step}' that doesn't begin with http://, https:// or grpc://")
        if step not in steps:
            raise SettingsError(f"'models' names '{step}', which is not a step; expected one of {', '.join(steps)}")
    servers = {uri: open_server(uri, timeout, max_bytes) for uri in uris.values()}
    return {step: servers[uri] for step, uri in uris.items()}
