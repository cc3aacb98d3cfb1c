"""Limits on what one request may cost. `docs/limits.md` lists all of them.

The server-wide limits come from environment variables, so that every model of a server has the same; those of a model
stand under `parameters.extra.limits`. A request over a limit is `InvalidInput`, or `RateLimited` where waiting helps.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from .errors import InvalidInput, SettingsError, reason_of
from .settings import Settings

_INT64 = 2**63

MAX_DIMENSIONS = 64
"""Most dimensions of a tensor's shape, as in NumPy."""

MAX_PADDING = 2**20 // 8
"""Most elements that one request may leave out of its data and have filled with zeros: 1 MiB of 8 bytes each."""

MAX_PARAMETERS = 1000
"""Most parameters of a request, and of each of its tensors."""

MAX_TENSORS = 1000
"""Most tensors of one request."""

MAX_STOP_CHARACTERS = 256
"""Longest `stop` text, in characters."""


class ServerLimits(Settings):
    """Limits of the whole server, read from the environment variables `MLSERVER_LLM_<NAME>`."""

    env_prefix = "MLSERVER_LLM_"

    max_request_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Bytes of one request's body, counted after decompression. Over gRPC the smaller of this and
    `MLSERVER_GRPC_MAX_MESSAGE_LENGTH` (4 MiB by default) holds."""
    max_elements: int = Field(default=1_000_000, ge=1)
    """Elements that the tensors of one request may declare or hold together."""
    request_timeout: float = Field(default=60.0, gt=0)
    """Seconds to receive one request; the time to answer it doesn't count."""
    tenant_header: Annotated[str, StringConstraints(to_lower=True, min_length=1)] = "x-tenant"
    """Request header that names the tenant. Tenants take turns where requests wait for a model."""


@functools.cache
def server_limits() -> ServerLimits:
    """The limits of this server. The environment is read once.

    Raises:
        SettingsError: a variable has a wrong value.
    """
    try:
        return ServerLimits()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        variable = f"{ServerLimits.env_prefix}{str(first['loc'][0]).upper()}"
        raise SettingsError(f"environment variable '{variable}': {reason_of(first)}") from error


class Limits(Settings):
    """Limits of one model, under `parameters.extra.limits`."""

    max_response_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Bytes of one answer that this model reads from another model or an API, and of one line of a stream."""


class GenerationLimits(Limits):
    """Limits of a model that generates or scores, under `parameters.extra.limits`."""

    max_tokens: int = Field(default=4096, ge=1)
    """Most tokens that a request may ask for; a request's -1 means this many."""
    max_n: int = Field(default=8, ge=1)
    """Most answers of one request, where requests may set `n`."""
    max_choices: int = Field(default=64, ge=1)
    """Most elements of the tensor `choices`."""
    max_choice_tokens: int = Field(default=16_384, ge=1)
    """Most tokens of all `choices` of one request together."""
    max_stop: int = Field(default=16, ge=1)
    """Most `stop` texts, each of up to 256 characters."""
    max_queue: int = Field(default=64, ge=1)
    """Requests that may wait for this model; further ones are answered 429."""
    queue_timeout: float = Field(default=60.0, gt=0)
    """Seconds that a request may wait before it is answered 429."""


def check_parameter_count(count: int) -> None:
    """Refuse a request or tensor with more than `MAX_PARAMETERS` parameters.

    Raises:
        InvalidInput: it has more.
    """
    if count > MAX_PARAMETERS:
        raise InvalidInput(f"the request has {count} parameters in one place; expected at most {MAX_PARAMETERS}")


def check_tensor_count(kind: str, count: int) -> None:
    """Refuse a request with more than `MAX_TENSORS` of a kind.

    Args:
        kind: `inputs` or `outputs`.
        count: how many the request has.

    Raises:
        InvalidInput: there are more.
    """
    if count > MAX_TENSORS:
        raise InvalidInput(f"the request has {count} {kind}; expected at most {MAX_TENSORS}")


def check_dimensions(tensor: str, shape: Sequence[int]) -> None:
    """Refuse a shape of more than `MAX_DIMENSIONS`, or with a size beyond 64 bits.

    Raises:
        InvalidInput: the shape is refused.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidInput(f"tensor '{tensor}' has {len(shape)} dimensions; expected at most {MAX_DIMENSIONS}")
    if any(not -_INT64 <= size < _INT64 for size in shape):
        raise InvalidInput(f"tensor '{tensor}' has a size beyond 64 bits; expected sizes that gRPC can carry")


@dataclass
class ElementBudget:
    """Counts the elements of one request's tensors against one limit, before anything is allocated for them.

    Args:
        left: elements that may still be taken.
        padding: zeros that may still be filled in.
    """

    left: int
    padding: int = MAX_PADDING

    @staticmethod
    def of_request() -> "ElementBudget":
        """The budget of a new request: `ServerLimits.max_elements`."""
        return ElementBudget(server_limits().max_elements)

    def take(self, tensor: str, shape: Sequence[int]) -> int:
        """Take the elements that `shape` declares, and return their number.

        A negative size, which other checks refuse, counts as 0.

        Raises:
            InvalidInput: more elements than are left, or a shape that `check_dimensions` refuses.
        """
        check_dimensions(tensor, shape)
        count = 0 if any(size <= 0 for size in shape) else 1
        for size in shape:
            count *= size
            if count > self.left:
                raise self._exceeded()
        self.left -= count
        return count

    def take_held(self, declared: int, held: int) -> None:
        """Take the elements that a tensor holds beyond the `declared` ones, which were taken before.

        Raises:
            InvalidInput: more elements than are left.
        """
        self.left -= max(0, held - declared)
        if self.left < 0:
            raise self._exceeded()

    def take_padding(self, tensor: str, count: int) -> None:
        """Take the zeros that fill up a tensor.

        Raises:
            InvalidInput: more zeros than are left.
        """
        self.padding -= count
        if self.padding < 0:
            raise InvalidInput(
                f"tensor '{tensor}' lacks {count} elements of its shape; a request may leave out {MAX_PADDING} in all"
            )

    @staticmethod
    def _exceeded() -> InvalidInput:
        limit = server_limits().max_elements
        return InvalidInput(f"the request's tensors have too many elements; expected at most {limit} together")
