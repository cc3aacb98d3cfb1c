"""Splits the calls of a step over the candidates of an experiment."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress

from mlserver_chat.requests.deadline import current_deadline
from mlserver_chat.requests.streams import closing

from ..engine.engine import Call
from ..engine.messages import StepMessage
from ..engine.streaming import Chunk, StreamCall
from ..manifests.experiments import ROUTE, Experiment, with_token


class SplitSteps:
    """Calls one of an experiment's candidates in place of the step that is its default.

    Args:
        experiments: experiments over models.
        call: calls a model.
        stream: calls one that streams.
    """

    def __init__(self, experiments: Iterable[Experiment], call: Call, stream: StreamCall):
        self._by_default = {each.spec.default: each for each in experiments if not each.is_of_pipelines}
        self._call = call
        self._stream = stream
        self._mirrored: set[asyncio.Task[None]] = set()

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """Call a step, or the candidate chosen for it; adds the header `x-seldon-route`. The engine's `Call`."""
        chosen, seen, route = self._choose(step, message, headers)
        answer, added = await self._call(chosen, message, seen)
        return answer, {**added, **route}

    async def stream(self, step: str, message: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """Call a step and read its answer as it comes; the engine's `StreamCall`."""
        chosen, seen, route = self._choose(step, message, headers)
        async with closing(self._stream(chosen, message, seen)) as chunks:
            async for chunk, added in chunks:
                yield chunk, {**added, **route}

    def _choose(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
        """Choose the model to call. Returns its name, the headers to send, and the headers to add to its answer."""
        experiment = self._by_default.get(step)
        # Core 2 doesn't show the route to models.
        seen = {name: value for name, value in headers.items() if name != ROUTE}
        if experiment is None:
            return step, seen, {}
        route = headers.get(ROUTE, "")
        chosen = experiment.choose(route)
        if experiment.spec.mirror is not None and experiment.is_mirrored():
            task = asyncio.create_task(self._mirror(experiment.spec.mirror.name, message, seen))
            self._mirrored.add(task)
            task.add_done_callback(self._mirrored.discard)
        return chosen, seen, {ROUTE: with_token(route, experiment.token(chosen))}

    async def _mirror(self, name: str, message: StepMessage, headers: Mapping[str, str]) -> None:
        # The mirror's answer and its error are dropped.
        with suppress(Exception):
            async with current_deadline().enforced():
                await self._call(name, message, headers)
