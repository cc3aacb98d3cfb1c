"""The error tree of the suite: every seam raises only these.

```
MLServerError
  ChatError                   abstract; fixes the HTTP status of each leaf
  + InvalidInput       422    bad or refused input: names the tensor or key, what was expected, what came
  | - SettingsError    422    the same for settings, prompts and manifests; raised while a model loads
  + RequestTooLarge    413    the body of a request is over the server's limit; RESOURCE_EXHAUSTED over gRPC
  + RequestTimeout     408    the body of a request didn't come in time
  + Conflict           409    another server reported a conflict; no store of this suite raises it
  + RateLimited        429    over a limit, ours or the upstream's
  + UpstreamFailed     424    the upstream failed or timed out after the request was sent
  | - CallerLeft       424    the caller hung up, so the work for it was cancelled
  + NotReachable       503    nothing was sent, or a store can't be reached
  + Stalled            504    a pipeline's branch can't fire any more
  + InternalError      500    a bug; the text is fixed and says nothing about the cause
```

Never 400 or 404, which Core 2's agent answers by sending the request again; never a 5xx after money was spent.
Over gRPC MLServer turns every status but 422 and 500 into UNKNOWN, so those sentences begin with their kind.
"""

from http import HTTPStatus
from typing import ClassVar

from mlserver.errors import MLServerError
from pydantic_core import ErrorDetails

MAX_SENTENCE = 1000
"""Most characters of a sentence that another server reports as its error."""


class ChatError(MLServerError):
    """Base of all errors of the suite; `str(error)` is one sentence for the caller."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    kind: ClassVar[str] = ""
    """What the sentence begins with, so that a gRPC client can tell kinds apart."""

    def __init__(self, sentence: str):
        prefix = f"{self.kind}: " if self.kind and not sentence.startswith(f"{self.kind}: ") else ""
        super().__init__(prefix + sentence, self.status)


class InvalidInput(ChatError):
    """Bad or refused input. Nothing was changed and nothing was sent."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class SettingsError(InvalidInput):
    """A settings file, prompt or manifest that can't be used. Loading the model fails."""


class RequestTooLarge(ChatError):
    """A request's body is over the server's limit, packed or unpacked. It was not read.

    Args:
        most: the limit, in bytes.
    """

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "too large"

    def __init__(self, most: int):
        super().__init__(f"the request is over the server's limit of {most} bytes")


class RequestTimeout(ChatError):
    """A request's body did not arrive in time.

    Args:
        seconds: the limit.
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
    """Over a limit, ours or the upstream's; the caller may try later.

    Args:
        sentence: what was exceeded.
        retry_after: seconds after which trying again may succeed; it is added to the sentence.
    """

    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "rate limited"

    def __init__(self, sentence: str, retry_after: float | None = None):
        hint = "" if retry_after is None else f"; try again after {retry_after:g} s"
        super().__init__(sentence + hint)
        self.retry_after = retry_after


class UpstreamFailed(ChatError):
    """The upstream failed or timed out after the request had been sent: trying again may cost again."""

    status = HTTPStatus.FAILED_DEPENDENCY
    kind = "upstream failed"


class CallerLeft(UpstreamFailed):
    """The caller hung up, so the work for it was cancelled. A pipeline shows it as the step's error `Canceled`."""

    kind = "canceled"

    def __init__(self) -> None:
        super().__init__("the caller went away")


class NotReachable(ChatError):
    """Nothing was sent, or a store can't be reached: trying again is safe."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "not reachable"


class Stalled(ChatError):
    """A pipeline has nothing in flight and still no output."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    kind = "stalled"


class InternalError(ChatError):
    """A bug. The text is fixed, because the cause may hold secrets or message text."""

    kind = "internal error"

    def __init__(self) -> None:
        super().__init__("the server log has the details")


_BY_STATUS: dict[int, type[ChatError]] = {
    leaf.status.value: leaf for leaf in (InvalidInput, Conflict, RateLimited, UpstreamFailed, NotReachable, Stalled)
}


def from_status(status: int, sentence: str) -> ChatError:
    """The error another V2 server reported, as one of ours.

    A status outside the tree means that the other side failed in a way we can't judge: `UpstreamFailed`.
    """
    return _BY_STATUS.get(status, UpstreamFailed)(shortened(sentence))


def shortened(sentence: str) -> str:
    """A sentence of another server, cut to `MAX_SENTENCE` characters."""
    return sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[: MAX_SENTENCE - 1]}…"


def reason_of(details: ErrorDetails) -> str:
    """What pydantic says about one wrong value, to stand behind the name of its key."""
    message = details["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
