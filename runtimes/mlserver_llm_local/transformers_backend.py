"""A `ChatBackend` whose model runs in this process, on a worker thread."""

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlserver.types import InferenceRequest

from mlserver_chat import Completion, CompletionChunk, InvalidInput, Message, Params
from mlserver_chat.limits import GenerationLimits
from mlserver_chat.messages.types import usage_json
from mlserver_chat.requests.fairness import fair_key

from .model import ChatModel, Generation, Outcome
from .options import GenerationOptions
from .settings import TransformersSettings
from .worker import ModelQueue, Worker

_CPU = Worker("llm-cpu")
"""The worker of all models on the CPU. They share the cores, so two computations at once would only slow each other
down. They also share torch's random numbers, so a seeded generation must run alone."""


class TransformersBackend:
    """Answers with a model in this process.

    Args:
        settings: the model, its device and its defaults.
        folder: a relative `model` resolves against it.
        name: the model's name in answers.
        limits: the limits on choices and waiting requests.

    Raises:
        SettingsError: the model can't be loaded.
    """

    def __init__(self, settings: TransformersSettings, folder: Path, name: str, limits: GenerationLimits | None = None):
        self._model = ChatModel(settings, folder)
        self._name = name
        self._limits = limits or GenerationLimits()
        self._worker = _CPU if self._model.on_cpu else Worker("llm-gpu")
        self._queue = ModelQueue(self._worker, name, self._limits)

    async def complete(
        self, messages: Sequence[Message], params: Params, *, request: InferenceRequest | None = None
    ) -> Completion:
        """Generate the whole answer. The `request` decides whose turn it is.

        Raises:
            InvalidInput: the model doesn't have an option, its template refuses a message, or the newest turn doesn't
                fit the context.
            RateLimited: too many requests wait, or this one waited too long.
            NotReachable: the request's time ran out before its turn, or the model is closed.
            UpstreamFailed: the request's time ran out during the generation.
        """
        pieces: list[str] = []
        outcome = await self._generate(messages, params, pieces.append, request)
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": outcome.finish_reason}
        return Completion(self._envelope("chat.completion") | {"choices": [choice], "usage": _usage(outcome)})

    async def stream(
        self, messages: Sequence[Message], params: Params, *, request: InferenceRequest | None = None
    ) -> AsyncIterator[CompletionChunk]:
        """Stream the answer. The last chunk has the finish reason and the usage. Raises the errors of `complete`."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()

        def emit(piece: str) -> None:
            with suppress(RuntimeError):  # the loop is closed when the server stops
                loop.call_soon_threadsafe(queue.put_nowait, piece)

        task = asyncio.create_task(self._generate(messages, params, emit, request))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        envelope = self._envelope("chat.completion.chunk")
        delta = {"role": "assistant"}
        try:
            while (piece := await queue.get()) is not None:
                choice = {"index": 0, "delta": {**delta, "content": piece}, "finish_reason": None}
                yield CompletionChunk({**envelope, "choices": [choice]})
                delta = {}
            outcome = await task
            choice = {"index": 0, "delta": delta, "finish_reason": outcome.finish_reason}
            yield CompletionChunk({**envelope, "choices": [choice], "usage": _usage(outcome)})
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def score(
        self, messages: Sequence[Message], choices: Sequence[str], *, request: InferenceRequest | None = None
    ) -> list[float]:
        """Return the log-probability of each choice as the whole answer, including the end of the turn.

        Raises:
            InvalidInput: a choice is empty, there are too many choices or tokens, or the newest turn doesn't fit the
                context.
            RateLimited, NotReachable, UpstreamFailed: as in `complete`.
        """
        most = self._limits.max_choices
        if len(choices) > most:
            raise InvalidInput(f"tensor 'choices' has {len(choices)} elements; expected at most {most}")
        if not all(choices):
            raise InvalidInput("tensor 'choices' has an empty element; expected answers to score")

        def work(unwanted: threading.Event) -> list[float]:
            return self._model.score(messages, choices, self._limits.max_choice_tokens, unwanted)

        return await self._queue.run(_key(request), work)

    async def aclose(self) -> None:
        """Wait for running and waiting requests, then free the weights."""
        await self._queue.drain()
        await asyncio.to_thread(self._model.close)
        if self._worker is not _CPU:
            self._worker.close()

    async def _generate(
        self, messages: Sequence[Message], params: Params, emit: Callable[[str], None], request: InferenceRequest | None
    ) -> Outcome:
        options = GenerationOptions.of(params)

        def work(unwanted: threading.Event) -> Outcome:
            return self._model.generate(messages, Generation(options, emit, unwanted))

        return await self._queue.run(_key(request), work)

    def _envelope(self, kind: str) -> dict[str, Any]:
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        return {"id": identity, "object": kind, "created": int(time.time()), "model": self._name}


def _usage(outcome: Outcome) -> dict[str, int]:
    return usage_json(outcome.prompt_tokens, outcome.completion_tokens)


def _key(request: InferenceRequest | None) -> Hashable:
    """Return the key under which a request waits. Calls without a request share one."""
    return None if request is None else fair_key(request)
