"""Calling steps that other servers serve: any V2 server, by gRPC as Core 2 does, or by REST."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

import grpc
import httpx2
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceResponse

from mlserver_chat import NotReachable, SettingsError, UpstreamFailed
from mlserver_chat.calls.client import RemoteClient, error_sentence
from mlserver_chat.requests.identity import carried_headers
from mlserver_chat.requests.streams import closing

from ..engine.engine import Call
from ..engine.errors import RpcFailed, StepTimeout
from ..engine.messages import Message
from ..engine.streaming import Chunk
from .local import SameProcessSteps, raise_reported
from .wire import message_from_response, message_from_rest, request_for_step

logger = logging.getLogger("mlserver.pipeline")

_METADATA_SECONDS = 5.0
"""How long a server is asked what a model declares."""


class RemoteSteps:
    """Calls the steps of one server.

    Args:
        uri: `grpc://host:port`, or the base URL of a REST server.
        timeout: seconds for one call.
        max_bytes: largest answer, in bytes.
    """

    def __init__(self, uri: str, timeout: float, max_bytes: int):
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._call: Call = self._grpc if uri.startswith("grpc://") else self._rest
        self._uri = uri.rstrip("/")
        self._channel: grpc.aio.Channel | None = None
        self._http: httpx2.AsyncClient | None = None

    async def __call__(
        self, step: str, message: Message, headers: Mapping[str, str]
    ) -> tuple[Message, Mapping[str, str]]:
        """The step's answer and the `x-*` headers it adds; the engine's `Call`."""
        return await self._call(step, message, headers)

    async def stream(self, step: str, message: Message, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """The step's answer as it comes; the pipeline's `StreamCall`."""
        responses = self._grpc_stream if self._uri.startswith("grpc://") else self._rest_stream
        async with closing(responses(step, message, headers)) as chunks:
            async for response in chunks:
                raise_reported(response)
                yield message_from_rest(response), {}

    async def speaks(self, step: str) -> bool:
        """Whether the step's model declares the output `output_all`, as the LLM steps of this suite do: chunks of
        theirs can be put together again. A server that can't be asked is not streamed from."""
        try:
            if self._uri.startswith("grpc://"):
                asked = pb.ModelMetadataRequest(name=step)
                metadata: Any = await self._stub().ModelMetadata(asked, timeout=_METADATA_SECONDS)
                names = [str(output.name) for output in metadata.outputs]
            else:
                answer = await self._client().get(f"{self._uri}/v2/models/{step}", timeout=_METADATA_SECONDS)
                outputs = cast(list[dict[str, Any]], answer.json().get("outputs") or [])
                names = [str(output["name"]) for output in outputs]
        except (grpc.aio.AioRpcError, httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            logger.warning("step '%s' on %s could not be asked whether it streams; it won't", step, self._uri)
            return False
        return "output_all" in names

    async def aclose(self) -> None:
        """Close the connections."""
        if self._channel is not None:
            await self._channel.close()
        if self._http is not None:
            await self._http.aclose()

    def _stub(self) -> Any:
        self._channel = self._channel or grpc.aio.insecure_channel(
            self._uri.removeprefix("grpc://"),
            [("grpc.max_receive_message_length", self._max_bytes), ("grpc.max_send_message_length", -1)],
        )
        return cast(Any, GRPCInferenceServiceStub)(self._channel)

    def _client(self) -> httpx2.AsyncClient:
        self._http = self._http or httpx2.AsyncClient(timeout=self._timeout)
        return self._http

    async def _grpc_stream(
        self, step: str, message: Message, headers: Mapping[str, str]
    ) -> AsyncIterator[InferenceResponse]:
        sent = ModelInferRequestConverter.from_types(request_for_step(message, {}), step)
        metadata = _metadata(step, headers)
        call: Any = self._stub().ModelStreamInfer(iter([sent]), metadata=metadata)
        try:
            async for answer in call:
                yield ModelInferResponseConverter.to_types(answer)
        except grpc.aio.AioRpcError as error:
            raise RpcFailed(_go_name(error.code()), error.details() or "") from None
        finally:
            call.cancel()

    async def _rest_stream(
        self, step: str, message: Message, headers: Mapping[str, str]
    ) -> AsyncIterator[InferenceResponse]:
        client = RemoteClient(self._uri, self._timeout)
        try:
            async with closing(client.stream(step, request_for_step(message, headers))) as responses:
                async for response in responses:
                    yield response
        finally:
            await client.aclose()

    async def _grpc(self, step: str, message: Message, headers: Mapping[str, str]) -> tuple[Message, Mapping[str, str]]:
        metadata = _metadata(step, headers)
        sent = ModelInferRequestConverter.from_types(request_for_step(message, {}), step)
        try:
            call: Any = self._stub().ModelInfer(sent, metadata=metadata)
            answer: Any = await call
            trailing: list[tuple[str, str]] = list(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            raise RpcFailed(_go_name(error.code()), error.details() or "") from None
        response = ModelInferResponseConverter.to_types(answer)
        return message_from_response(response), carried_headers({name: str(value) for name, value in trailing})

    async def _rest(self, step: str, message: Message, headers: Mapping[str, str]) -> tuple[Message, Mapping[str, str]]:
        body = request_for_step(message, {}).model_dump(exclude_none=True)
        body.get("parameters", {}).pop("headers", None)
        try:
            answer = await self._client().post(
                f"{self._uri}/v2/models/{step}/infer",
                content=json.dumps(body, default=_text).encode("utf-8"),
                headers=[
                    *((name.encode("utf-8"), value.encode("utf-8")) for name, value in headers.items()),
                    (b"content-type", b"application/json"),
                ],
            )
        except UnicodeDecodeError:
            raise UpstreamFailed("a tensor holds bytes that REST can't carry; give the server as 'grpc://…'") from None
        except httpx2.ConnectError:
            raise NotReachable(f"the server of '{step}' can't be reached") from None
        except httpx2.TimeoutException:
            raise StepTimeout from None
        except httpx2.HTTPError:
            raise UpstreamFailed(f"the connection to '{step}' broke") from None
        if not answer.is_success:
            raise MLServerError(error_sentence(step, answer), answer.status_code)
        try:
            response = InferenceResponse.model_validate_json(answer.content)
        except ValueError:
            raise UpstreamFailed(f"'{step}' answered with something that is not a V2 response") from None
        return message_from_rest(response), carried_headers(answer.headers)


def _metadata(step: str, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers as gRPC's metadata, which holds ASCII only: the rest is percent-encoded."""
    metadata = [(name, value if value.isascii() else quote(value)) for name, value in headers.items()]
    return [*metadata, ("seldon-model", step)]


class MixedSteps:
    """Calls some steps on other servers and the rest as `others` does."""

    def __init__(self, remote: Mapping[str, RemoteSteps], others: SameProcessSteps):
        self._remote = remote
        self._others = others

    async def __call__(
        self, step: str, message: Message, headers: Mapping[str, str]
    ) -> tuple[Message, Mapping[str, str]]:
        """The step's answer; the engine's `Call`."""
        return await self._remote.get(step, self._others)(step, message, headers)

    def stream(self, step: str, message: Message, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """The step's answer as it comes; the pipeline's `StreamCall`."""
        return self._remote.get(step, self._others).stream(step, message, headers)

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(remote.aclose() for remote in set(self._remote.values())))


def remote_steps(
    models: str | Mapping[str, str], steps: Sequence[str], timeout: float, max_bytes: int
) -> dict[str, RemoteSteps]:
    """The servers of those `steps` that are elsewhere, by the setting `models`; one connection a server.

    Raises:
        SettingsError: a URI that is neither http nor gRPC, or a name that is no step.
    """
    uris = dict.fromkeys(steps, models) if isinstance(models, str) else models
    for step, uri in uris.items():
        if not uri.startswith(("http://", "https://", "grpc://")):
            raise SettingsError(f"'models' gives '{step}' a URI that begins with none of http://, https://, grpc://")
        if step not in steps:
            raise SettingsError(f"'models' names '{step}', which is no step; expected one of {', '.join(steps)}")
    servers = {uri: RemoteSteps(uri, timeout, max_bytes) for uri in uris.values()}
    return {step: servers[uri] for step, uri in uris.items()}


def _go_name(code: grpc.StatusCode) -> str:
    """`INVALID_ARGUMENT` as Core 2, which is written in Go, prints it: `InvalidArgument`."""
    return code.name.title().replace("_", "")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    raise TypeError(type(value).__name__)
