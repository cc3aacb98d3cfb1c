"""Cancels LLM steps whose caller has left."""

from collections.abc import Collection, Mapping

from mlserver_chat.errors import CallerLeft
from mlserver_chat.requests.caller import current_caller

from ..engine.engine import Call
from ..engine.messages import StepMessage


class LeavableSteps:
    """Calls steps, and cancels the calls of LLM steps once the caller of the request has left.

    Generating for no reader costs money or holds the model; other steps are cheap and finish.

    Args:
        call: calls a model.
        llm_steps: the names of the LLM steps.
    """

    def __init__(self, call: Call, llm_steps: Collection[str]):
        self._call = call
        self._llm_steps = llm_steps

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step; the engine's `Call`.

        Raises:
            CallerLeft: the caller has left, and this is an LLM step.
        """
        caller = current_caller()
        if caller is None or step not in self._llm_steps:
            return await self._call(step, message, headers)
        if caller.has_left:
            raise CallerLeft
        return await caller.unless_left(self._infer(step, message, headers))

    async def _infer(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        return await self._call(step, message, headers)
