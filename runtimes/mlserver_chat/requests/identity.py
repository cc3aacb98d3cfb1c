"""Who asks, and whether it is the same request again: names, ids and the key that makes an append happen once."""

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
"""Names of models, steps and pipelines, as Core 2 accepts them (use with `fullmatch`)."""

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
    """The request's own parameter `name`, None without it. MLServer's types take forty times as long to say None."""
    extra = request.parameters.model_extra if request.parameters is not None else None
    return extra.get(name) if extra else None


def request_identity(request: InferenceRequest) -> str:
    """What a replay of this request repeats: the `x-request-id` header, else the request's `id`, else ""."""
    return request_headers(request).get("x-request-id") or request.id or ""


_CARRIED_NAME = re.compile(r"x-[-_.a-z0-9]*(?<!-bin)")
"""Names that both HTTP and gRPC can carry; in gRPC's metadata one that ends in `-bin` wants bytes."""


def carried_headers(headers: Mapping[str, str], identity: str = "") -> dict[str, str]:
    """Return the `x-*` headers that a pipeline passes to its steps and that go along to every model called.

    Args:
        headers: the headers as they arrived.
        identity: the value of `x-request-id` if `headers` have none.

    Returns:
        Lower-case names, and values that REST and gRPC carry alike. Names that gRPC can't carry are left out.
    """
    lower = {name.lower(): header_value(value) for name, value in headers.items()}
    carried = {name: value for name, value in lower.items() if _CARRIED_NAME.fullmatch(name)}
    identity = carried.pop("x-request-id", "") or header_value(identity)
    return carried | ({"x-request-id": identity} if identity else {})


def forwarded_headers(request: InferenceRequest) -> dict[str, str]:
    """Return the headers of a call on behalf of `request`, with the time that is left now."""
    return carried_headers(arrived_headers(request), request.id or "") | current_deadline().headers()


def base_name(model_name: str) -> str:
    """The model's name without the `_<n>` that Core 2 adds for every new version of its Model resource."""
    return re.sub(r"_\d+$", "", model_name)


def check_memory_id(memory_id: str) -> str:
    """`memory_id` itself, if it is one: any text of 1 to 255 characters without NUL.

    Raises:
        InvalidInput: it isn't.
    """
    if not memory_id:
        raise InvalidInput("tensor 'memory_id' is an empty text; expected 1 to 255 characters")
    if len(memory_id) > MAX_MEMORY_ID:
        raise InvalidInput(f"tensor 'memory_id' has {len(memory_id)} characters; expected 1 to {MAX_MEMORY_ID}")
    if "\0" in memory_id:
        raise InvalidInput("tensor 'memory_id' holds a NUL character; expected text without NUL")
    return memory_id


def memory_id_of(tensors: Tensors) -> str:
    """The request's `memory_id`, checked."""
    return check_memory_id(single_text(tensors, "memory_id"))


def hashed(text: str) -> str:
    """SHA-256 of `text`, 64 hex digits: the name under which an id is stored, whatever characters it has."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class AppendKey:
    """Delivery is at-least-once; the same key again is a replay and stored once.

    Equal messages under another identity, or from another memory model, are other messages.
    """

    memory_id: str
    identity: str
    model: str
    content_hash: str

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, 64 hex digits: what a store keeps unique."""
        return hashed("\0".join((self.memory_id, self.identity, self.model, self.content_hash)))


def append_key(memory_id: str, request: InferenceRequest, model_name: str, messages: Sequence[Message]) -> AppendKey:
    """The key under which `messages`, sent by `request` to model `model_name`, are appended.

    A request without an identity (MLServer gives every request an `id`) is nobody's replay.
    """
    content = hashed("\n".join(message.to_history() for message in messages))
    identity = request_identity(request) or uuid.uuid4().hex
    return AppendKey(memory_id, identity, base_name(model_name), content)
