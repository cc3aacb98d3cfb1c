"""Who asks, and whether it is the same request again: names, ids and the key that makes an append happen once."""

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, unquote

from mlserver.types import InferenceRequest

from ..errors import InvalidInput
from ..limits import server_limits
from ..messages.types import Message
from ..tensors import Tensors, single_text
from .deadline import current_deadline

NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""Names of models, steps and pipelines, as Core 2 accepts them (use with `fullmatch`)."""

MAX_MEMORY_ID = 255
"""Longest `memory_id`, in characters."""


def request_headers(request: InferenceRequest) -> dict[str, str]:
    """The HTTP headers or gRPC metadata of the request, lower-case, as MLServer shows them in `parameters.headers`."""
    headers: Any = getattr(request.parameters, "headers", None)
    if not isinstance(headers, Mapping):
        return {}
    items = cast(Mapping[Any, Any], headers).items()
    return {str(name).lower(): str(value) for name, value in items}


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
    """The `x-*` headers, lower-case and in ASCII, which go along to the steps of a pipeline and to every model called.

    Text beyond ASCII is percent-encoded UTF-8, which REST and gRPC carry alike. A header with control characters stays
    behind, but `x-request-id` (`identity` without one) never does: it is percent-encoded then.
    """
    lower = {name.lower(): _as_sent(value) for name, value in headers.items()}
    identity = lower.pop("x-request-id", "") or identity
    carried = {
        name: _in_ascii(value) for name, value in lower.items() if _CARRIED_NAME.fullmatch(name) and value.isprintable()
    }
    if identity:
        carried["x-request-id"] = _in_ascii(identity) if identity.isprintable() else quote(identity)
    return carried


def _as_sent(value: str) -> str:
    """A header's text. Servers read headers as Latin-1, clients send UTF-8."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _in_ascii(value: str) -> str:
    return value if value.isascii() else quote(value, errors="replace")


def header_text(value: str) -> str:
    """The text that a header stands for: the name of a tenant, whichever way it came.

    `é` sent as UTF-8, as Latin-1 or percent-encoded is the same text.
    """
    return unquote(_as_sent(value))


_unique_headers = {"x-request-id", "x-idempotency-key", "seldon-model"}


def declare_unique_header(name: str) -> None:
    """Note a header that names a tenant. A request in which it comes twice with different values is refused."""
    _unique_headers.add(name.lower())


def check_unique_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Refuse a request in which one reader could see another tenant or identity than the next.

    Args:
        headers: names and values as they came, repeated names included.

    Raises:
        InvalidInput: a header that names a tenant or an identity comes twice with different values.
    """
    unique = _unique_headers | {server_limits().tenant_header}
    found: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if name in unique and found.setdefault(name, value) != value:
            raise InvalidInput(f"header '{name}' came twice with different values; expected it once")


def forwarded_headers(request: InferenceRequest) -> dict[str, str]:
    """The headers that go along to a model called on behalf of `request`, with the time that is left now."""
    return carried_headers(request_headers(request), request.id or "") | current_deadline().headers()


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
