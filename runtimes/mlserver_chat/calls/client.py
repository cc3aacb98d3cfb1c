"""Calling another V2 model: `SameProcessClient` and `RemoteClient`, two forms of the `ModelClient` seam."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import httpx2
from mlserver import MLModel, ModelSettings
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.registry import MultiModelRegistry
from mlserver.types import InferenceRequest, InferenceResponse, Parameters

from ..errors import ChatError, InternalError, NotReachable, SettingsError, UpstreamFailed, from_status
from ..requests.identity import forwarded_headers
from ..requests.streams import closing
from ..seams import ModelClient
from ..settings import SiblingSettings
from .siblings import check_in_repository, find_model, in_worker, repository_models, wait_for_model

_NO_STREAM = (404, 405)
_MODEL_OF_URI = re.compile(r"/v2/(?:models|pipelines)/([^/]+)/infer/?$")


class SameProcessClient:
    """Calls a model of this process through `predict`, with id and headers as MLServer's data plane sets them.

    `timeout` is seconds for the answer, in a stream for each piece of it.
    """

    def __init__(self, registry: MultiModelRegistry, timeout: float):
        self._registry = registry
        self._timeout = timeout

    async def infer(self, model: str, request: InferenceRequest) -> InferenceResponse:
        """The model's response.

        Raises:
            NotReachable: the model isn't there or not ready.
            ChatError: the model refused. UpstreamFailed: it failed, or took longer than the timeout.
        """
        target = await self._target(model)
        with model_context(target.settings):
            try:
                async with asyncio.timeout(self._timeout):
                    return await target.predict(request)
            except Exception as error:
                raise _as_ours(model, error) from None

    async def stream(self, model: str, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The model's responses as they come; raises like `infer`."""
        target = await self._target(model)
        try:
            async with closing(target.predict_stream(_one(request))) as responses:
                while True:
                    async with asyncio.timeout(self._timeout):
                        response = await anext(responses, None)
                    if response is None:
                        return
                    yield _checked(response)
        except Exception as error:
            raise _as_ours(model, error) from None

    async def aclose(self) -> None:
        """Nothing to give back."""

    async def _target(self, model: str) -> MLModel:
        target = await find_model(self._registry, model)
        if target is None or not target.ready:
            raise NotReachable(f"model '{model}' is not ready")
        return target


def _checked(response: InferenceResponse) -> InferenceResponse:
    """A streamed response; one that reports an error, as runtimes of the suite end a failed stream, is raised."""
    parameters = response.parameters
    sentence, status = getattr(parameters, "error", None), getattr(parameters, "status", None)
    if isinstance(sentence, str) and isinstance(status, int) and not response.outputs:
        raise from_status(status, sentence)
    return response


async def _one(request: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    yield request


def _as_ours(model: str, error: Exception) -> ChatError:
    """What the other model raised. Its bugs are a failed upstream: a 500 of ours would make Envoy send again."""
    if isinstance(error, ChatError) and not isinstance(error, InternalError):
        return error
    if isinstance(error, MLServerError):
        return from_status(error.status_code, str(error))
    if isinstance(error, TimeoutError):
        return UpstreamFailed(f"model '{model}' did not answer in time")
    return UpstreamFailed(f"model '{model}' failed")


class RemoteClient:
    """Calls a model of a V2 server over HTTP.

    `uri` is a server's base URL, or a model's `…/infer` URL as Core 2's agent writes it: then the name given to a call
    is not used. `timeout` is seconds for the answer; connecting has 5. No redirect is followed.
    """

    def __init__(self, uri: str, timeout: float, ca_file: str | None = None):
        self._uri = uri.rstrip("/")
        verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._http = httpx2.AsyncClient(timeout=httpx2.Timeout(timeout, connect=5.0), verify=verify)

    def url(self, model: str) -> str:
        """The model's `infer` URL."""
        return self._uri if self._uri.endswith("/infer") else f"{self._uri}/v2/models/{model}/infer"

    async def infer(self, model: str, request: InferenceRequest) -> InferenceResponse:
        """The model's response.

        Raises:
            NotReachable: no connection. UpstreamFailed: no answer in time, or not V2. Others as the server said.
        """
        try:
            answer = await self._http.post(self.url(model), content=_body(request), headers=_headers(request))
        except httpx2.HTTPError as error:
            raise _transport_error(model, error) from None
        if not answer.is_success:
            raise _reported(model, answer)
        try:
            return InferenceResponse.model_validate_json(answer.content)
        except ValueError:
            raise UpstreamFailed(f"model '{model}' answered with something that is not a V2 response") from None

    async def stream(self, model: str, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The model's responses as they come, by server-sent events from `infer_stream`; raises like `infer`.

        What can't stream, as a pipeline on Core 2, answers in one piece.
        """
        try:
            async with self._http.stream(
                "POST", f"{self.url(model)}_stream", content=_body(request), headers=_headers(request)
            ) as answer:
                if answer.status_code in _NO_STREAM:
                    yield await self.infer(model, request)
                    return
                if not answer.is_success:
                    await answer.aread()
                    raise _reported(model, answer)
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        yield _checked(InferenceResponse.model_validate_json(line.removeprefix("data:")))
        except httpx2.HTTPError as error:
            raise _transport_error(model, error) from None
        except ValueError:
            raise UpstreamFailed(f"model '{model}' streamed something that is not a V2 response") from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _body(request: InferenceRequest) -> bytes:
    """The request as V2 JSON. Headers go as headers, and text as text."""
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


def _headers(request: InferenceRequest) -> list[tuple[bytes, bytes]]:
    """As bytes, since a header may hold what ASCII doesn't."""
    headers = forwarded_headers(request) | {"content-type": "application/json"}
    return [(name.encode("utf-8"), value.encode("utf-8")) for name, value in headers.items()]


def _transport_error(model: str, error: httpx2.HTTPError) -> ChatError:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return NotReachable(f"model '{model}' can't be reached")
    if isinstance(error, httpx2.TimeoutException):
        return UpstreamFailed(f"model '{model}' did not answer in time")
    return UpstreamFailed(f"the connection to model '{model}' broke")


def _reported(model: str, answer: httpx2.Response) -> ChatError:
    return from_status(answer.status_code, error_sentence(model, answer))


def error_sentence(model: str, answer: httpx2.Response) -> str:
    """What a V2 server says is wrong; where its body isn't V2's, the status."""
    try:
        return str(cast(Mapping[str, Any], answer.json())["error"])
    except (ValueError, KeyError, TypeError):
        return f"model '{model}' answered with status {answer.status_code}"


class BoundModel:
    """A model that is called by another: which one, and through which client."""

    def __init__(self, name: str, client: ModelClient):
        self.name = name
        self._client = client

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """The model's response to `request`."""
        return await self._client.infer(self.name, request)

    def stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The model's responses to `request` as they come."""
        return self._client.stream(self.name, request)

    async def aclose(self) -> None:
        """Give the client's connections back."""
        await self._client.aclose()


async def bind_llm(settings: SiblingSettings, owner: ModelSettings, registry: MultiModelRegistry | None) -> BoundModel:
    """The LLM that `settings` name: `infer_uri`, else the model `llm` of this process once it is ready, else `llm_uri`.

    In a worker process it isn't waited for: until it is loaded, calls are `NotReachable`.

    Raises:
        SettingsError: none is named, or the named one can't be found.
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
    return BoundModel(name, RemoteClient(uri, settings.timeout, settings.ssl_verify_path))


def call_parameters(request: InferenceRequest, **parameters: Any) -> Parameters:
    """Request parameters for a call made on behalf of `request`: its identity and `x-*` headers, and `parameters`."""
    return Parameters(headers=forwarded_headers(request), **parameters)


def request_on_behalf(request: InferenceRequest, inputs: list[Any], **parameters: Any) -> InferenceRequest:
    """A request with tensors `inputs` to another model, made on behalf of `request`. Its headers bear the identity,
    which may be of characters that an `id` can't have."""
    return InferenceRequest(id=request.id or None, inputs=inputs, parameters=call_parameters(request, **parameters))
