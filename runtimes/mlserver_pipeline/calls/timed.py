"""Limits the time of each call of a step."""

from collections.abc import Mapping

from mlserver_chat.requests.deadline import DEADLINE_HEADER, current_deadline, deadline_scope

from ..engine.engine import MOMENT, Call
from ..engine.errors import StepTimeout
from ..engine.messages import StepMessage


class TimedSteps:
    """Ends calls of steps that take too long, and tells each step its time in the header `x-request-timeout-ms`.

    A step, streamed or not, has `timeout` seconds, or less if the request's own deadline comes sooner.

    Args:
        call: calls a model.
        timeout: seconds for one call.
    """

    def __init__(self, call: Call, timeout: float):
        self._call = call
        self._timeout = timeout

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step; the engine's `Call`.

        Raises:
            StepTimeout: the step took too long.
        """
        deadline = current_deadline().sooner(self._timeout)
        with deadline_scope(deadline):
            try:
                async with deadline.enforced():
                    answer, added = await self._call(step, message, {**headers, **deadline.headers()})
            except Exception as error:
                # A step that watches the deadline itself fails a moment before it.
                if deadline.left < MOMENT:
                    raise StepTimeout from error
                raise
        return answer, {name: value for name, value in added.items() if name != DEADLINE_HEADER}
