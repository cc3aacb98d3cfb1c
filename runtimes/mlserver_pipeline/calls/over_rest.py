"""Calls the steps of another server over REST."""

from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager

from mlserver.errors import MLServerError

from mlserver_chat import ChatError, RemoteClient, UpstreamFailed
from mlserver_chat.requests.streams import closing

from ..engine.messages import StepMessage
from ..engine.streaming import Chunk
from .wire import message_from_rest, request_for_step, response_headers


class RestServer:
    """A server's REST API. It carries no bytes that aren't UTF-8.

    Args:
        uri: the base URL.
        timeout: seconds for one call, and for each gap of a stream.
        max_bytes: most bytes of an answer, and of one line of a stream.
    """

    def __init__(self, uri: str, timeout: float, max_bytes: int):
        self._client = RemoteClient(uri, timeout, max_bytes=max_bytes)

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step; the engine's `Call`."""
        with _own_errors():
            response = await self._client.infer(step, request_for_step(message, headers))
        return message_from_rest(response), response_headers(response)

    async def stream(self, step: str, message: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """Call a step and read its answer as it comes; the engine's `StreamCall`."""
        with _own_errors():
            async with closing(self._client.stream(step, request_for_step(message, headers))) as responses:
                async for response in responses:
                    yield message_from_rest(response), response_headers(response)

    async def declared_outputs(self, step: str) -> list[str]:
        """The names of the outputs that the step's model declares.

        Raises:
            ChatError: the server doesn't say.
        """
        return await self._client.declared_outputs(step)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


@contextmanager
def _own_errors() -> Generator[None]:
    """Raises an error as the server reported it, with its own status, since that decides the gRPC code."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UpstreamFailed("a tensor holds bytes that REST can't carry; give the server as 'grpc://…'") from error
    except ChatError as error:
        if isinstance(error.__cause__, MLServerError):
            raise error.__cause__ from None
        raise
