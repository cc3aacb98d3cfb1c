"""The clients that call other V2 models: `SameProcessClient` and `RemoteClient`."""

import json
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx2
from mlserver import MLModel, ModelSettings
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.registry import MultiModelRegistry
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, Parameters
from pydantic import ValidationError

from ..errors import ChatError, InternalError, NotReachable, SettingsError, UpstreamFailed, from_status, shortened
from ..requests.deadline import Deadline, current_deadline
from ..requests.identity import carried_headers, forwarded_headers
from ..requests.streams import closing
from ..seams import ModelClient
from ..settings import SiblingSettings
from .bounded import TooLarge, read_body, read_lines
from .sending import NOTHING_SENT, watch_sending
from .siblings import check_in_repository, find_model, in_worker, repository_models, wait_for_model

_NO_STREAM = (404, 405)
_MODEL_OF_URI = re.compile(r"/v2/(?:models|pipelines)/([^/]+)/infer/?$")


class SameProcessClient:
    """Calls models of this process through `predict`.

    The deadline of the current request bounds each call as a whole, streams included.

    Args:
        registry: the registry of this process's models.
        timeout: seconds for a whole answer; in a stream, for each piece.
    """

    def __init__(self, registry: MultiModelRegistry, timeout: float):
        self._registry = registry
        self._timeout = timeout

    async def infer(self, model: str, request: InferenceRequest) -> InferenceResponse:
        """Return the model's response.

        Raises:
            NotReachable: the model is missing or not ready, or the deadline has passed.
            UpstreamFailed: the model failed or exceeded the timeout.
            ChatError: the model raised this error of the tree.
        """
        target = await self._target(model)
        with model_context(target.settings), _sibling_failures(model):
            async with current_deadline().sooner(self._timeout).enforced():
                return await target.predict(request)

    async def stream(self, model: str, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Yield the model's responses as they arrive. Raises like `infer`."""
        target = await self._target(model)
        with _sibling_failures(model):
            async with closing(target.predict_stream(_one(request))) as responses:
                while True:
                    async with current_deadline().sooner(self._timeout).enforced():
                        response = await anext(responses, None)
                    if response is None:
                        return
                    yield checked(response)

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""

    async def _target(self, model: str) -> MLModel:
        if current_deadline().passed:
            raise NotReachable(f"the request's deadline passed before model '{model}' was called")
        target = await find_model(self._registry, model)
        if target is None or not target.ready:
            raise NotReachable(f"model '{model}' is not ready")
        return target


def checked(response: InferenceResponse) -> InferenceResponse:
    """Return a response of a stream.

    Raises:
        MLServerError: the response is the last one of a failed stream, and reports this error.
    """
    parameters = response.parameters
    sentence, status = getattr(parameters, "error", None), getattr(parameters, "status", None)
    if isinstance(sentence, str) and isinstance(status, int) and not response.outputs:
        raise MLServerError(sentence, status)
    return response


async def _one(request: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    yield request


@contextmanager
def _sibling_failures(model: str) -> Generator[None]:
    """Turn what another model of this process raises into an error of the tree.

    A bug of that model is a failed upstream: a 500 would make Envoy send the request again.
    """
    try:
        yield
    except MLServerError as error:
        if isinstance(error, ChatError) and not isinstance(error, InternalError):
            raise
        raise from_status(error.status_code, str(error)) from error
    except TimeoutError as error:
        raise UpstreamFailed(f"model '{model}' did not answer in time") from error
    except Exception as error:
        raise UpstreamFailed(f"model '{model}' failed") from error


class RemoteClient:
    """Calls models of a V2 server over HTTP. It follows no redirects.

    The deadline of the current request bounds each call as a whole, streams included.

    Args:
        uri: the server's base URL, or the `…/infer` URL of one model, as Core 2's agent writes it. With the latter the
            name given to a call is not used.
        timeout: seconds for a whole answer; in a stream, for the first piece and between pieces. Connecting may take 5.
        ca_file: CA file for `https` servers.
        max_bytes: most bytes of an answer, and of one line of a stream.
    """

    def __init__(self, uri: str, timeout: float, ca_file: str | None = None, max_bytes: int = 16 * 2**20):
        self._uri = uri.rstrip("/")
        self._timeout = timeout
        self._max_bytes = max_bytes
        verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout, connect=5.0), verify=verify, headers={"accept-encoding": "identity"}
        )

    def url(self, model: str) -> str:
        """Return the `infer` URL of a model."""
        return self._uri if self._uri.endswith("/infer") else f"{self._uri}/v2/models/{model}/infer"

    async def infer(self, model: str, request: InferenceRequest) -> InferenceResponse:
        """Return the model's response. Its parameter `headers` holds the `x-*` headers of the answer.

        Raises:
            NotReachable: there is no connection, or the deadline has passed.
            UpstreamFailed: the answer is late, too large or not V2.
            ChatError: the server reported an error; its `__cause__` has the server's own status.
        """
        with _failures(model) as call:
            async with self._deadline.enforced(), self._post(call, self.url(model), request) as answer:
                response = InferenceResponse.model_validate_json(await read_body(answer, self._max_bytes))
        headers = carried_headers(answer.headers)
        if headers:
            response.parameters = response.parameters or Parameters()
            response.parameters.headers = headers
        return response

    async def stream(self, model: str, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Yield the model's responses, which arrive as server-sent events from `infer_stream`. Raises like `infer`.

        A model that can't stream, such as a pipeline on Core 2, answers in one piece.
        """
        with _failures(model) as call:
            async with AsyncExitStack() as stack:
                try:
                    async with self._deadline.enforced():
                        answer = await stack.enter_async_context(self._post(call, f"{self.url(model)}_stream", request))
                except MLServerError as error:
                    if error.status_code not in _NO_STREAM:
                        raise
                    yield await self.infer(model, request)
                    return
                lines = await stack.enter_async_context(closing(read_lines(answer, self._max_bytes)))
                while True:
                    async with self._deadline.enforced():
                        data = await _next_data(lines)
                    if data is None:
                        return
                    yield checked(InferenceResponse.model_validate_json(data))

    async def declared_outputs(self, model: str) -> list[str]:
        """Return the names of the outputs that a model declares. Raises like `infer`."""
        url = self.url(model).removesuffix("/infer")
        with _failures(model) as call:
            async with self._deadline.enforced(), self._send(call, self._http.build_request("GET", url)) as answer:
                metadata = MetadataModelResponse.model_validate_json(await read_body(answer, self._max_bytes))
        return [output.name for output in metadata.outputs or ()]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def _deadline(self) -> Deadline:
        return current_deadline().sooner(self._timeout)

    @asynccontextmanager
    async def _post(self, call: "_Call", url: str, request: InferenceRequest) -> AsyncGenerator[httpx2.Response]:
        """Send a request, and yield the answer, whose body is still to come.

        Raises:
            MLServerError: the server answered with an error.
        """
        if current_deadline().passed:
            raise NotReachable(f"the request's deadline passed before model '{call.model}' was called")
        headers = forwarded_headers(request) | {"content-type": "application/json"}
        post = self._http.build_request("POST", url, content=_body(request), headers=headers)
        async with self._send(call, post) as answer:
            if not answer.is_success:
                body = await read_body(answer, self._max_bytes)
                raise MLServerError(_error_sentence(call.model, answer.status_code, body), answer.status_code)
            yield answer

    @asynccontextmanager
    async def _send(self, call: "_Call", request: httpx2.Request) -> AsyncGenerator[httpx2.Response]:
        watch_sending(request, call.note_sent)
        answer = await self._http.send(request, stream=True)
        call.note_sent()
        try:
            yield answer
        finally:
            await answer.aclose()


async def _next_data(lines: AsyncIterator[bytes]) -> bytes | None:
    """Return the data of the next event, or None at the end of the stream. Skips comments, which keep connections
    alive."""
    async for line in lines:
        if line.startswith(b"data:"):
            return line.removeprefix(b"data:")
    return None


def _body(request: InferenceRequest) -> bytes:
    """Return a request as V2 JSON with text elements, and without the parameter `headers`."""
    parameters = request.parameters.model_dump(exclude_none=True) if request.parameters else {}
    parameters.pop("headers", None)
    body = request.model_dump(exclude_none=True, exclude={"parameters"}) | (
        {"parameters": parameters} if parameters else {}
    )
    return json.dumps(body, default=_plain, ensure_ascii=False).encode("utf-8")


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    raise TypeError(type(value).__name__)


@dataclass
class _Call:
    """An HTTP call of a model."""

    model: str
    sent: bool = False

    def note_sent(self) -> None:
        self.sent = True


@contextmanager
def _failures(model: str) -> Generator[_Call]:
    """Turn the failures of an HTTP call into errors of the tree."""
    call = _Call(model)
    try:
        yield call
    except MLServerError as error:
        if isinstance(error, ChatError):
            raise
        raise from_status(error.status_code, str(error)) from error
    except NOTHING_SENT as error:
        raise NotReachable(f"model '{model}' can't be reached") from error
    except (httpx2.TimeoutException, TimeoutError) as error:
        if not call.sent:
            raise NotReachable(f"model '{model}' can't be reached in time") from error
        raise UpstreamFailed(f"model '{model}' did not answer in time") from error
    except httpx2.HTTPError as error:
        raise UpstreamFailed(f"the connection to model '{model}' broke") from error
    except TooLarge as error:
        raise UpstreamFailed(f"model '{model}' answered more than 'limits.max_response_bytes' allows") from error
    except ValidationError as error:
        raise UpstreamFailed(f"model '{model}' answered something that is not a V2 response") from error


def _error_sentence(model: str, status: int, body: bytes) -> str:
    """Return the error sentence of a V2 server's answer, or a sentence with the status if the answer isn't V2."""
    try:
        return shortened(str(cast(Mapping[str, Any], json.loads(body))["error"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"model '{model}' answered with status {status}"


class BoundModel:
    """A model to call, together with the client for it.

    Args:
        name: the model's name.
        client: calls the model.
    """

    def __init__(self, name: str, client: ModelClient):
        self.name = name
        self._client = client

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Return the model's response to `request`. Raises like the client."""
        return await self._client.infer(self.name, request)

    def stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Yield the model's responses to `request` as they arrive. Raises like the client."""
        return self._client.stream(self.name, request)

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()


async def bind_llm(
    settings: SiblingSettings,
    owner: ModelSettings,
    registry: MultiModelRegistry | None,
    max_bytes: int = 16 * 2**20,
) -> BoundModel:
    """Find the LLM that `settings` name: `infer_uri`, else the model `llm` of this process, else `llm_uri`.

    Waits until a model of this process is ready. A worker process doesn't wait, because it loads its models one after
    the other; calls raise `NotReachable` until the LLM is loaded.

    Args:
        settings: name the LLM.
        owner: settings of the model that calls the LLM.
        registry: the registry of this process's models, if there is one.
        max_bytes: most bytes of an answer of an LLM on another server.

    Raises:
        SettingsError: the settings name no LLM, or the LLM can't be found.
    """
    if settings.infer_uri is None and settings.llm and registry is not None:
        here = settings.llm in repository_models(owner) or await find_model(registry, settings.llm) is not None
        if here or settings.llm_uri is None:
            if in_worker():
                check_in_repository(settings.llm, owner)
            else:
                await wait_for_model(registry, settings.llm, owner, settings.load_timeout)
            return BoundModel(settings.llm, SameProcessClient(registry, settings.timeout))
    uri = settings.infer_uri or settings.llm_uri
    if uri is None:
        needed = "'llm_uri' (no model registry was found in this process)" if settings.llm else "'llm' or 'llm_uri'"
        raise SettingsError(f"model '{owner.name}': the LLM to call is not known; set {needed} in parameters.extra")
    if not uri.startswith(("http://", "https://")):
        raise SettingsError(f"model '{owner.name}': 'llm_uri' is not an http or https URL")
    named = _MODEL_OF_URI.search(uri)
    name = named.group(1) if named else settings.llm
    if name is None:
        raise SettingsError(f"model '{owner.name}': 'llm_uri' is a server's base URL; set 'llm' to the model to call")
    return BoundModel(name, RemoteClient(uri, settings.timeout, settings.ssl_verify_path, max_bytes))


def call_parameters(request: InferenceRequest, **parameters: Any) -> Parameters:
    """Return the parameters of a call on behalf of `request`: its request id, its `x-*` headers, and `parameters`."""
    return Parameters(headers=forwarded_headers(request), **parameters)


def request_on_behalf(request: InferenceRequest | None, inputs: list[Any], **parameters: Any) -> InferenceRequest:
    """Build a request to another model on behalf of a request.

    The headers carry the request id, which may have characters that the field `id` can't have. The tensor `memory_id`
    is sent along, so that the other model can serve conversations in turn.

    Args:
        request: the request that is being answered, if there is one.
        inputs: the tensors to send.
        parameters: parameters to send.
    """
    request = request or InferenceRequest(inputs=[])
    conversation = [tensor for tensor in request.inputs if tensor.name == "memory_id"][:1]
    return InferenceRequest(
        id=request.id or None, inputs=[*inputs, *conversation], parameters=call_parameters(request, **parameters)
    )
