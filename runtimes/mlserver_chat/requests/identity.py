"""Ids and headers of requests, and the key by which a store recognizes a repeated append."""

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mlserver.types import InferenceRequest

from ..errors import InvalidInput
from ..messages.types import Message
from ..tensors import Tensors, single_text
from .deadline import current_deadline
from .headers import header_text, header_value

NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""Names of models, steps and pipelines that Core 2 accepts. Use it with `fullmatch`."""

MAX_MEMORY_ID = 255
"""Longest `memory_id`, in characters."""


def arrived_headers(request: InferenceRequest) -> dict[str, str]:
    """Return the HTTP headers or gRPC metadata of a request as they arrived, with lower-case names."""
    headers: Any = getattr(request.parameters, "headers", None)
    if not isinstance(headers, Mapping):
        return {}
    items = cast(Mapping[Any, Any], headers).items()
    return {str(name).lower(): str(value) for name, value in items}


def request_headers(request: InferenceRequest) -> dict[str, str]:
    """Return the HTTP headers or gRPC metadata of a request, with lower-case names and decoded values."""
    return {name: header_text(value) for name, value in arrived_headers(request).items()}


def request_parameter(request: InferenceRequest, name: str) -> Any:
    """Return a parameter of the request, or None. Forty times as fast as `getattr` where the parameter is missing."""
    extra = request.parameters.model_extra if request.parameters is not None else None
    return extra.get(name) if extra else None


def request_identity(request: InferenceRequest) -> str:
    """Return the request id: the header `x-request-id`, else the request's `id`, else "". A replay repeats it."""
    return request_headers(request).get("x-request-id") or request.id or ""


_CARRIED_NAME = re.compile(r"x-[-_.a-z0-9]*(?<!-bin)")
"""Header names that HTTP and gRPC can carry. In gRPC metadata, a name that ends in `-bin` needs bytes."""


def carried_headers(headers: Mapping[str, str], request_id: str = "") -> dict[str, str]:
    """Return the `x-*` headers that a pipeline passes to its steps and that go along to every model called.

    Args:
        headers: the headers as they arrived.
        request_id: the value of `x-request-id` if `headers` have none.

    Returns:
        Lower-case names, and values that REST and gRPC carry alike. Names that gRPC can't carry are left out.
    """
    lower = {name.lower(): header_value(value) for name, value in headers.items()}
    carried = {name: value for name, value in lower.items() if _CARRIED_NAME.fullmatch(name)}
    request_id = carried.pop("x-request-id", "") or header_value(request_id)
    return carried | ({"x-request-id": request_id} if request_id else {})


def forwarded_headers(request: InferenceRequest) -> dict[str, str]:
    """Return the headers of a call on behalf of `request`, with the time that is left now."""
    return carried_headers(arrived_headers(request), request.id or "") | current_deadline().headers()


def base_name(model_name: str) -> str:
    """Return a model's name without the suffix `_<n>`, which Core 2 adds for each version of a Model resource."""
    return re.sub(r"_\d+$", "", model_name)


def check_memory_id(memory_id: str) -> str:
    """Return a `memory_id` that is valid: text of 1 to 255 characters without NUL.

    Raises:
        InvalidInput: it is not valid.
    """
    if not memory_id:
        raise InvalidInput("tensor 'memory_id' is an empty text; expected 1 to 255 characters")
    if len(memory_id) > MAX_MEMORY_ID:
        raise InvalidInput(f"tensor 'memory_id' has {len(memory_id)} characters; expected 1 to {MAX_MEMORY_ID}")
    if "\0" in memory_id:
        raise InvalidInput("tensor 'memory_id' holds a NUL character; expected text without NUL")
    return memory_id


def memory_id_of(tensors: Tensors) -> str:
    """Return the `memory_id` of a request.

    Raises:
        InvalidInput: it is missing or not valid.
    """
    return check_memory_id(single_text(tensors, "memory_id"))


def hashed(text: str) -> str:
    """Return the SHA-256 of a text as 64 hex digits. Stores use it in place of ids, which may hold any character."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class AppendKey:
    """Identifies an append. Delivery is at-least-once, so a store ignores an append whose key it knows.

    Equal messages with another request id, or to another memory model, have another key.
    """

    memory_id: str
    request_id: str
    model: str
    content_hash: str

    @property
    def digest(self) -> str:
        """SHA-256 of all fields as 64 hex digits. A store keeps it unique."""
        return hashed("\0".join((self.memory_id, self.request_id, self.model, self.content_hash)))


def append_key(memory_id: str, request: InferenceRequest, model_name: str, messages: Sequence[Message]) -> AppendKey:
    """Return the key of an append.

    Args:
        memory_id: the conversation.
        request: the request that sends the messages. If it has no request id, the key is unique. MLServer gives every
            request an `id`.
        model_name: name of the memory model.
        messages: the messages to append.
    """
    content = hashed("\n".join(message.to_history() for message in messages))
    request_id = request_identity(request) or uuid.uuid4().hex
    return AppendKey(memory_id, request_id, base_name(model_name), content)
