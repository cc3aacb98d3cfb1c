"""Request headers: how their text crosses REST and gRPC, and which of them must not contradict themselves.

gRPC metadata is ASCII, and ASGI servers decode the bytes of an HTTP header as Latin-1. So the models of the suite send
text beyond ASCII as percent-encoded UTF-8, and decode it when a request arrives. Escapes that spell only ASCII stay as
they are: decoding them would make the tenants `a%62` and `ab` the same.
"""

from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import quote, unquote

from ..errors import InvalidInput
from ..limits import server_limits

_unique_headers = {"x-request-id", "x-idempotency-key", "seldon-model"}


def header_text(value: str) -> str:
    """Decode the value of a header as it arrived over REST or gRPC, or from another model of this process.

    Args:
        value: UTF-8 or Latin-1 decoded as Latin-1, or percent-encoded UTF-8.
    """
    if not _is_plain(value):
        with suppress(UnicodeError):
            return value.encode("latin-1").decode("utf-8")
        return value
    if "%" in value:
        with suppress(UnicodeError):
            text = unquote(value, errors="strict")
            return value if _is_plain(text) else text
    return value


def header_value(value: str) -> str:
    """Encode the value of a header that arrived, so that REST and gRPC can carry it on.

    Returns:
        Printable ASCII that `header_text` decodes to the same text.
    """
    return value if _is_plain(value) else quote(header_text(value), errors="replace")


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable()


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
        if name not in unique:
            continue
        seen = found.setdefault(name, value)
        if seen != value and header_text(seen) != header_text(value):
            raise InvalidInput(f"header '{name}' came twice with different values; expected it once")
