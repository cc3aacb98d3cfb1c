"""Calls the steps of another server over gRPC, as Core 2 does."""

from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import grpc
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from mlserver_chat.calls.client import checked
from mlserver_chat.requests.identity import carried_headers

from ..engine.errors import RpcFailed
from ..engine.messages import StepMessage
from ..engine.streaming import Chunk
from .wire import message_from_response, message_from_rest, request_for_step


class GrpcServer:
    """A server's gRPC API. The channel opens with the first call.

    Args:
        uri: `grpc://host:port`.
        max_bytes: most bytes of an answer, and of one message of a stream.
    """

    def __init__(self, uri: str, max_bytes: int):
        self._target = uri.removeprefix("grpc://").rstrip("/")
        self._options = [("grpc.max_receive_message_length", max_bytes), ("grpc.max_send_message_length", -1)]
        self._channel: grpc.aio.Channel | None = None

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step; the engine's `Call`."""
        with _rpc_errors():
            call: Any = self._stub().ModelInfer(_request(step, message), metadata=_metadata(step, headers))
            answer: Any = await call
            trailing: list[tuple[str, str]] = list(await call.trailing_metadata())
        response = ModelInferResponseConverter.to_types(answer)
        return message_from_response(response), carried_headers({name: str(value) for name, value in trailing})

    async def stream(self, step: str, message: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """Call a step and read its answer as it comes; the engine's `StreamCall`."""
        requests = iter([_request(step, message)])
        call: Any = self._stub().ModelStreamInfer(requests, metadata=_metadata(step, headers))
        try:
            with _rpc_errors():
                async for answer in call:
                    yield message_from_rest(checked(ModelInferResponseConverter.to_types(answer))), {}
        finally:
            call.cancel()

    async def declared_outputs(self, step: str) -> list[str]:
        """The names of the outputs that the step's model declares.

        Raises:
            RpcFailed: the server doesn't say.
        """
        with _rpc_errors():
            metadata: Any = await self._stub().ModelMetadata(pb.ModelMetadataRequest(name=step))
        return [str(output.name) for output in metadata.outputs]

    async def aclose(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    def _stub(self) -> Any:
        self._channel = self._channel or grpc.aio.insecure_channel(self._target, self._options)
        return cast(Any, GRPCInferenceServiceStub)(self._channel)


def _request(step: str, message: StepMessage) -> pb.ModelInferRequest:
    return ModelInferRequestConverter.from_types(request_for_step(message, {}), step)


def _metadata(step: str, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers as gRPC's metadata, which holds ASCII only, as `carried_headers` are."""
    return [*headers.items(), ("seldon-model", step)]


@contextmanager
def _rpc_errors() -> Generator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        # Core 2, which is written in Go, prints INVALID_ARGUMENT as InvalidArgument.
        code = error.code().name.title().replace("_", "")
        raise RpcFailed(code, error.details() or "") from error
