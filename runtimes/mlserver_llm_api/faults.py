"""Translates failures of an API into errors of the suite.

No sentence repeats a message of the API, because it may hold the key or the prompt.

| failure | error |
|---|---|
| no connection in any attempt | `NotReachable` 503: nothing was sent |
| status 400, 413 or 422 | `InvalidInput` 422, which names the API's `param`, `code` and `type` |
| status 429 | `RateLimited` 429, with the time of `Retry-After` if it is at most a day |
| another status, a timeout, a broken connection, or an answer that is too large or not JSON | `UpstreamFailed` 424 |
"""

import math
import re
import time
from email.utils import mktime_tz, parsedate_tz

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from mlserver_chat import ChatError, InvalidInput, NotReachable, RateLimited, UpstreamFailed

_REFUSED = (400, 413, 422)
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_KEY_PART = 8
_LONGEST_WAIT = 24 * 3600


class AnswerTooLarge(Exception):
    """The API's answer exceeds `limits.max_response_bytes`."""


def as_ours(error: Exception, sent: bool, key: str) -> ChatError:
    """Translate an exception of the `openai` client into an error of the suite.

    Args:
        error: an exception of the client.
        sent: whether any attempt may have reached the API.
        key: the API key. The sentence doesn't hold it, even if the API's error code does.
    """
    match error:
        case AnswerTooLarge():
            return UpstreamFailed("the API answered more than 'limits.max_response_bytes' allows")
        case APIStatusError():
            return _of_status(error, key)
        case APITimeoutError() | TimeoutError() if sent:
            return UpstreamFailed("the API did not answer in time")
        case APIConnectionError() | TimeoutError() if not sent:
            return NotReachable("the API can't be reached; nothing was sent")
        case APIConnectionError():
            return UpstreamFailed("the connection to the API broke before the answer was complete")
        case APIError():
            return UpstreamFailed(f"the API reported an error in the middle of its answer{_details(error, key)}")
        case ValueError() | TypeError() if not sent:
            return InvalidInput("an option has a value that can't be sent, such as NaN")
        case ValueError():
            return UpstreamFailed("the API answered something that is not JSON")
        case _:
            return UpstreamFailed(f"the call to the API failed ({type(error).__name__})")


def _of_status(error: APIStatusError, key: str) -> ChatError:
    status = error.status_code
    if status == 429:
        wait = _retry_after(error.response.headers.get("retry-after"))
        return RateLimited(f"the API's rate limit is exceeded{_details(error, key)}", retry_after=wait)
    if status in _REFUSED:
        return InvalidInput(f"the API refuses the request with status {status}{_details(error, key)}")
    hints = {401: "the key is not accepted", 403: "the key may not do this", 404: "no such model or URL"}
    hint = "redirects are not followed" if 300 <= status < 400 else hints.get(status, "")
    return UpstreamFailed(f"the API answered with status {status}{f': {hint}' if hint else ''}{_details(error, key)}")


def _details(error: APIError, key: str) -> str:
    """Return the fields of OpenAI's error object that hold identifiers."""
    found = [
        f"{name} '{value}'"
        for name, value in (("param", error.param), ("code", error.code), ("type", error.type))
        if isinstance(value, str) and _IDENTIFIER.fullmatch(value) and not _holds_key(value, key)
    ]
    return f" ({', '.join(found)})" if found else ""


def _holds_key(value: str, key: str) -> bool:
    """Whether a value holds the key, or a part of it too long to be a coincidence, in upper or lower case."""
    value, key = value.lower(), key.lower()
    parts = {key[start : start + _KEY_PART] for start in range(max(1, len(key) - _KEY_PART + 1))}
    return any(part in value for part in parts)


def _retry_after(header: str | None) -> int | None:
    """Return the seconds of a `Retry-After` header, which may be a number or a date. None if they are not sensible."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        date = parsedate_tz(header)
        seconds = mktime_tz(date) - time.time() if date else math.nan
    return math.ceil(seconds) if 0 < seconds <= _LONGEST_WAIT else None
