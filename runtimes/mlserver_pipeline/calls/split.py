"""Calling, in place of a step that an experiment splits, one of the experiment's candidates."""

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
    """Calls, in place of a step that is the default of an experiment of models, the candidate whose turn it is.

    Args:
        experiments: those of models.
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
        """The candidate's answer, with the header `x-seldon-route`; the engine's `Call`."""
        chosen, seen, route = self._choose(step, message, headers)
        answer, added = await self._call(chosen, message, seen)
        return answer, {**added, **route}

    async def stream(self, step: str, message: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """The candidate's answer as it comes; the pipeline's `StreamCall`."""
        chosen, seen, route = self._choose(step, message, headers)
        async with closing(self._stream(chosen, message, seen)) as chunks:
            async for chunk, added in chunks:
                yield chunk, {**added, **route}

    def _choose(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[str, Mapping[str, str], Mapping[str, str]]:
        """The model to call, the headers it sees, and those that its answer gets besides its own."""
        experiment = self._by_default.get(step)
        # Models don't see by which route a request has come.
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
        # Nobody waits for a mirror's answer, nor for its error.
        with suppress(Exception):
            async with current_deadline().enforced():
                await self._call(name, message, headers)
