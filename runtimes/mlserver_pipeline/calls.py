"""Calling the steps: models of this process, through MLServer's own data plane."""

import asyncio
from collections.abc import Mapping
from typing import Any

from mlserver.handlers import DataPlane
from mlserver.types import InferenceResponse

from .errors import StepTimeout
from .messages import Message
from .wire import message_from_response, request_for_step


class SameProcessSteps:
    """Calls models as a request from outside would: MLServer's data plane checks readiness, sets id and headers and
    counts the call in the model's metrics.

    Args:
        data_plane: MLServer's.
        timeout: seconds for one call, as Core 2's model gateway has one.
    """

    def __init__(self, data_plane: DataPlane, timeout: float):
        self._data_plane = data_plane
        self._timeout = timeout

    async def __call__(
        self, step: str, message: Message, headers: Mapping[str, str]
    ) -> tuple[Message, Mapping[str, str]]:
        """The step's answer and the `x-*` headers it adds; the engine's `Call`."""
        scope = asyncio.timeout(self._timeout)
        try:
            async with scope:
                response = await self._data_plane.infer(request_for_step(message, headers), step)
        except TimeoutError:
            if scope.expired():
                raise StepTimeout from None
            raise
        return message_from_response(response), _added_headers(response)


def _added_headers(response: InferenceResponse) -> dict[str, str]:
    headers: dict[str, Any] = (response.parameters and response.parameters.headers) or {}
    return {name.lower(): str(value) for name, value in headers.items() if name.lower().startswith("x-")}
