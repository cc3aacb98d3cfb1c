"""A `ChatBackend` that calls an API through the `openai` client, and passes the API's JSON on unchanged."""

from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from typing import Any, cast

import httpx2
from openai import DEFAULT_CONNECTION_LIMITS, AsyncAzureOpenAI, AsyncOpenAI, AsyncStream
from openai import RequestOptions as CallOptions

from mlserver_chat import ChatError, Completion, CompletionChunk, Message, NotReachable, Params, UpstreamFailed
from mlserver_chat.calls.sending import NOTHING_SENT, watch_sending
from mlserver_chat.requests.deadline import current_deadline

from .call_options import check_options
from .faults import AnswerTooLarge, as_ours
from .settings import ApiSettings, OpenAISettings

_PATH = "/chat/completions"
_SENT: ContextVar[bool] = ContextVar("sent", default=False)
"""Whether any attempt of the current call, including the client's retries, may have reached the API."""
_TOO_LARGE: ContextVar[bool] = ContextVar("too_large", default=False)
"""Whether the answer to the current call exceeded its limit."""


def _note_sent() -> None:
    _SENT.set(True)


class _HttpClient(httpx2.AsyncClient):
    """Records whether a request may have been sent, and limits the size of answers.

    Args:
        max_bytes: most bytes of an answer; of a stream as a whole.
        options: options of `httpx2.AsyncClient`.
    """

    def __init__(self, max_bytes: int, **options: Any):
        super().__init__(**options)
        self._max_bytes = max_bytes

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        before = _SENT.get()
        watch_sending(request, _note_sent)
        try:
            answer = await super().send(request, stream=True, **options)
        except NOTHING_SENT:
            _SENT.set(before)
            raise
        # Decompression could exceed the limit. Without it, a compressed answer is refused, because it isn't JSON.
        answer.headers.pop("content-encoding", None)
        answer.stream = _BoundedStream(cast(httpx2.AsyncByteStream, answer.stream), self._max_bytes)
        if not stream:
            try:
                await answer.aread()
            except AnswerTooLarge:
                # The openai client retries after an exception, but not after a status 400.
                _TOO_LARGE.set(True)
                return httpx2.Response(400, request=request, json={})
            finally:
                await answer.aclose()
        return answer


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of an answer. Raises `AnswerTooLarge` beyond `max_bytes`."""

    def __init__(self, inner: httpx2.AsyncByteStream, max_bytes: int):
        self._inner = inner
        self._left = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._left -= len(chunk)
            if self._left < 0:
                raise AnswerTooLarge
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def build_client(settings: ApiSettings, max_bytes: int) -> AsyncOpenAI:
    """Build an `openai` client. Sends nothing.

    The environment variables of the `openai` package (`OPENAI_BASE_URL`, `OPENAI_API_KEY`, `OPENAI_ORG_ID`,
    `OPENAI_PROJECT_ID`) have no effect.

    Args:
        settings: the API and its key.
        max_bytes: most bytes of an answer; of a stream as a whole.
    """
    timeout = httpx2.Timeout(settings.timeout, connect=settings.connect_timeout)
    shared: dict[str, Any] = {
        "api_key": settings.api_key.get_secret_value() if settings.api_key else None,
        "timeout": timeout,
        "max_retries": settings.max_retries,
        "http_client": _HttpClient(
            max_bytes,
            timeout=timeout,
            limits=DEFAULT_CONNECTION_LIMITS,
            follow_redirects=False,
            headers={"accept-encoding": "identity"},
        ),
    }
    if isinstance(settings, OpenAISettings) and settings.is_azure:
        token = settings.azure_ad_token
        client: AsyncOpenAI = AsyncAzureOpenAI(
            azure_endpoint=settings.azure_endpoint or "",
            azure_deployment=settings.azure_deployment,
            api_version=settings.api_version,
            azure_ad_token=token.get_secret_value() if token else None,
            **shared,
        )
    else:
        # The client requires a key. A server without authentication ignores it.
        shared["api_key"] = shared["api_key"] or "none"
        client = AsyncOpenAI(base_url=settings.base_url, **shared)
    client.organization = settings.organization if isinstance(settings, OpenAISettings) else None
    client.project = None
    return client


class OpenAIBackend:
    """Answers with a model of an API. The deadline of the current request bounds each call as a whole.

    Args:
        client: calls the API.
        model: the model's name at the API.
        timeout: seconds for a whole answer including retries; in a stream, for each piece.
        stream_timeout: seconds for a whole stream.
    """

    def __init__(self, client: AsyncOpenAI, model: str, timeout: float, stream_timeout: float):
        self._client = client
        self._model = model
        self._timeout = timeout
        self._stream_timeout = stream_timeout

    async def complete(self, messages: Sequence[Message], params: Params) -> Completion:
        """Return the whole answer.

        Raises:
            InvalidInput: the API refuses the request, or an option is wrong.
            RateLimited: the API's rate limit is exceeded.
            NotReachable: nothing was sent.
            UpstreamFailed: the API failed in another way.
        """
        fields = {name: value for name, value in params.items() if name != "stream_options"}
        return Completion.of_json(await self._post(self._body(messages, fields)))

    async def stream(self, messages: Sequence[Message], params: Params) -> AsyncIterator[CompletionChunk]:
        """Yield the answer as it arrives. Raises like `complete`; an incomplete answer is `UpstreamFailed`."""
        body = self._body(messages, params) | {"stream": True}
        end = current_deadline().sooner(self._stream_timeout)
        events: AsyncStream[object] = await self._post(body, stream=True, stream_cls=AsyncStream[object])
        finished = False
        async with events:
            try:
                while True:
                    async with end.sooner(self._timeout).enforced():
                        data = await anext(events, None)
                    if data is None:
                        break
                    chunk = CompletionChunk.of_json(data)
                    finished = finished or bool(chunk.finish_reason)
                    yield chunk
            except ChatError:
                raise
            except Exception as error:
                raise as_ours(error, sent=True, key=self._client.api_key) from error
        if not finished:
            raise UpstreamFailed("the stream ended before the answer was complete")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _post(self, body: dict[str, Any], **kind: Any) -> Any:
        """Send `body`, except `extra_headers`, `extra_query`, `extra_body` and `timeout`, which are options of the
        client."""
        options: CallOptions = {}
        if headers := body.pop("extra_headers", None):
            options["headers"] = headers
        if query := body.pop("extra_query", None):
            options["params"] = query
        limit = self._timeout
        if (wanted := body.pop("timeout", None)) is not None:
            limit = options["timeout"] = float(wanted)
        body.update(body.pop("extra_body", None) or {})
        if current_deadline().passed:
            raise NotReachable("the request's deadline passed before the API was called")
        _SENT.set(False)
        _TOO_LARGE.set(False)
        try:
            async with current_deadline().sooner(limit).enforced():
                return await self._client.post(_PATH, cast_to=object, body=body, options=options, **kind)
        except Exception as error:
            cause = AnswerTooLarge() if _TOO_LARGE.get() else error
            raise as_ours(cause, _SENT.get(), self._client.api_key) from error

    def _body(self, messages: Sequence[Message], params: Params) -> dict[str, Any]:
        check_options(params)
        return {"model": self._model, "messages": [message.to_openai() for message in messages], **params}
