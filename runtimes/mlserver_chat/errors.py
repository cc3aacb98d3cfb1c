"""The error tree of the suite. Every seam raises only these errors.

```
MLServerError
  ChatError                   abstract; each subclass fixes its HTTP status
  + InvalidInput       422    wrong or refused input; the sentence names the tensor or key and the expected value
  | - SettingsError    422    wrong settings, prompt or manifest; raised while a model loads
  + RequestTooLarge    413    the request's body exceeds the server's limit; RESOURCE_EXHAUSTED over gRPC
  + RequestTimeout     408    the request's body did not arrive in time
  + Conflict           409    another server reported a conflict; no store of this suite raises it
  + RateLimited        429    a limit of this server or of the upstream is exceeded
  + UpstreamFailed     424    the upstream failed or timed out after the request had been sent
  | - CallerLeft       424    the caller hung up, so its work was cancelled
  + NotReachable       503    nothing was sent, or the store can't be reached
  + Stalled            504    a pipeline can't produce its output any more
  + InternalError      500    a bug; the fixed text says nothing about the cause
```

No error uses 400 or 404, because Core 2's agent then sends the request again. None uses a 5xx after money was spent,
because Envoy sends it again. Over gRPC, MLServer turns most statuses into UNKNOWN, so a sentence begins with its kind.
"""

from http import HTTPStatus
from typing import ClassVar

from mlserver.errors import MLServerError
from pydantic_core import ErrorDetails

MAX_SENTENCE = 1000
"""Most characters of a sentence that another server reports as its error."""


class ChatError(MLServerError):
    """Base class of all errors of the suite.

    Args:
        sentence: one sentence for the caller; `str(error)` returns it.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    kind: ClassVar[str] = ""
    """Prefix of the sentence, by which a gRPC client tells errors apart."""

    def __init__(self, sentence: str):
        prefix = f"{self.kind}: " if self.kind and not sentence.startswith(f"{self.kind}: ") else ""
        super().__init__(prefix + sentence, self.status)


class InvalidInput(ChatError):
    """Wrong or refused input. Nothing was changed and nothing was sent."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class SettingsError(InvalidInput):
    """A settings file, prompt or manifest is wrong, so the model doesn't load."""


class RequestTooLarge(ChatError):
    """A request's body exceeds the server's limit, before or after decompression. It was not parsed.

    Args:
        most: the limit in bytes.
    """

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "too large"

    def __init__(self, most: int):
        super().__init__(f"the request is over the server's limit of {most} bytes")


class RequestTimeout(ChatError):
    """A request's body did not arrive in time.

    Args:
        seconds: the time limit.
    """

    status = HTTPStatus.REQUEST_TIMEOUT
    kind = "timed out"

    def __init__(self, seconds: float):
        super().__init__(f"the request's body did not arrive within {seconds:g} s")


class Conflict(ChatError):
    """The request contradicts what is stored.

    The stores of this suite raise no conflict. It stands for the status 409 of another V2 server, and for stores of
    your own.
    """

    status = HTTPStatus.CONFLICT
    kind = "conflict"


class RateLimited(ChatError):
    """A limit of this server or of the upstream is exceeded. A later attempt may succeed.

    Args:
        sentence: names the limit.
        retry_after: seconds to wait before the next attempt; the sentence ends with them.
    """

    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "rate limited"

    def __init__(self, sentence: str, retry_after: float | None = None):
        hint = "" if retry_after is None else f"; try again after {retry_after:g} s"
        super().__init__(sentence + hint)
        self.retry_after = retry_after


class UpstreamFailed(ChatError):
    """The upstream failed or timed out after the request had been sent, so a retry may cost money again."""

    status = HTTPStatus.FAILED_DEPENDENCY
    kind = "upstream failed"


class CallerLeft(UpstreamFailed):
    """The caller hung up, so its work was cancelled. A pipeline reports it as the step's error `Canceled`."""

    kind = "canceled"

    def __init__(self) -> None:
        super().__init__("the caller went away")


class NotReachable(ChatError):
    """Nothing was sent, or the store can't be reached, so a retry is safe."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "not reachable"


class Stalled(ChatError):
    """A pipeline has no running step and no output."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    kind = "stalled"


class InternalError(ChatError):
    """A bug. The text is fixed, because the cause may hold secrets or messages."""

    kind = "internal error"

    def __init__(self) -> None:
        super().__init__("the server log has the details")


_BY_STATUS: dict[int, type[ChatError]] = {
    leaf.status.value: leaf for leaf in (InvalidInput, Conflict, RateLimited, UpstreamFailed, NotReachable, Stalled)
}


def from_status(status: int, sentence: str) -> ChatError:
    """Return the error for a status and a sentence that another V2 server reported.

    Returns:
        `UpstreamFailed` for a status that the tree lacks.
    """
    return _BY_STATUS.get(status, UpstreamFailed)(shortened(sentence))


def shortened(sentence: str) -> str:
    """Cut a sentence of another server to `MAX_SENTENCE` characters."""
    return sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[: MAX_SENTENCE - 1]}…"


def reason_of(details: ErrorDetails) -> str:
    """Return pydantic's message about one wrong value, worded to follow the name of its key."""
    message = details["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
