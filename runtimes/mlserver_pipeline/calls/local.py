"""Calls steps that are models of this process, through MLServer's data plane."""

from collections.abc import AsyncIterator, Mapping

from mlserver import MLModel
from mlserver.handlers import DataPlane
from mlserver.types import InferenceRequest

from mlserver_chat import Runtime
from mlserver_chat.calls.client import checked
from mlserver_chat.requests.streams import closing

from ..engine.messages import StepMessage
from ..engine.streaming import Chunk
from .wire import message_from_response, request_for_step, response_headers

LLM_OUTPUT = "output_all"
"""The output that the models of LLM steps declare."""


class SameProcessSteps:
    """Calls models as a request from outside would.

    MLServer's data plane checks that the model is ready, sets id and headers, and counts the call in its metrics.

    Args:
        data_plane: MLServer's data plane.
    """

    def __init__(self, data_plane: DataPlane):
        self._data_plane = data_plane

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step; the engine's `Call`."""
        response = await self._data_plane.infer(request_for_step(message, headers), step)
        return message_from_response(response), response_headers(response)

    async def stream(self, step: str, message: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """Call a step and read its answer as it comes; the engine's `StreamCall`."""
        request = request_for_step(message, headers)
        async with closing(self._data_plane.infer_stream(_one(request), step)) as responses:
            async for response in responses:
                yield message_from_response(checked(response)), response_headers(response)


async def _one(request: InferenceRequest) -> AsyncIterator[InferenceRequest]:
    yield request


def can_stream(model: MLModel) -> bool:
    """Whether the chunks of a model can be joined to its whole answer. Only the runtimes of this suite ensure that."""
    own: object = getattr(type(model), "handle_stream", None)
    return own is not None and own is not vars(Runtime)["handle_stream"]


def is_llm(model: MLModel) -> bool:
    """Whether a model declares the output `output_all`, as the LLM steps of this suite do."""
    return any(output.name == LLM_OUTPUT for output in model.outputs or ())
