"""`ChatBackend` over a model of transformers in this process: one worker thread computes, the event loop goes on."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mlserver_chat import Completion, CompletionChunk, InvalidInput, Message, NotReachable, Params
from mlserver_chat.messages.types import usage_json

from .model import ChatModel, Job, Outcome
from .options import GenerationOptions
from .settings import TransformersSettings

MAX_CHOICES = 64
"""Most choices that are scored in one request."""

_CPU = ThreadPoolExecutor(1, thread_name_prefix="llm-cpu")
"""All models on the CPU share it, as they share the cores: two computations at once would only slow each other down.
It also keeps a seeded generation from drawing another's random numbers."""

T = TypeVar("T")


class TransformersBackend:
    """Answers with a model in this process.

    Args:
        settings: which model, where and how.
        folder: against which a relative `model` resolves.
        name: what answers call the model.

    Raises:
        SettingsError: the model can't be loaded.
    """

    def __init__(self, settings: TransformersSettings, folder: Path, name: str):
        self._model = ChatModel(settings, folder)
        self._name = name
        self._is_closed = False
        self._executor: Executor = _CPU if self._model.on_cpu else ThreadPoolExecutor(1, thread_name_prefix="llm-gpu")

    async def complete(self, messages: Sequence[Message], params: Params) -> Completion:
        """The whole answer.

        Raises:
            InvalidInput: an option the model doesn't have, a message its template refuses, or too long a conversation.
        """
        pieces: list[str] = []
        outcome = await self._generate(messages, Job(GenerationOptions.of(params), pieces.append))
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": outcome.finish_reason}
        return Completion(self._envelope("chat.completion") | {"choices": [choice], "usage": _usage(outcome)})

    async def stream(self, messages: Sequence[Message], params: Params) -> AsyncIterator[CompletionChunk]:
        """The answer as it comes; the last chunk carries the finish reason and the usage. Raises like `complete`."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()

        def emit(piece: str) -> None:
            with suppress(RuntimeError):  # the loop is gone when the server stops
                loop.call_soon_threadsafe(queue.put_nowait, piece)

        task = asyncio.create_task(self._generate(messages, Job(GenerationOptions.of(params), emit)))
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

    async def score(self, messages: Sequence[Message], choices: Sequence[str]) -> list[float]:
        """The log-probability of each choice as the whole answer, the end of the turn included.

        Raises:
            InvalidInput: an empty choice, too many of them, or too long a conversation.
        """
        if len(choices) > MAX_CHOICES:
            raise InvalidInput(f"tensor 'choices' has {len(choices)} elements; expected at most {MAX_CHOICES}")
        if not all(choices):
            raise InvalidInput("tensor 'choices' has an empty element; expected answers to score")
        return await self._in_thread(self._model.score, messages, choices)

    async def aclose(self) -> None:
        """Let what is running and waiting come to its end, then free the weights."""
        self._is_closed = True
        await asyncio.get_running_loop().run_in_executor(self._executor, self._model.close)
        if self._executor is not _CPU:
            self._executor.shutdown(wait=False)

    async def _generate(self, messages: Sequence[Message], job: Job) -> Outcome:
        try:
            return await self._in_thread(self._model.generate, messages, job)
        except asyncio.CancelledError:
            job.cancelled.set()
            raise

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._is_closed:
            raise NotReachable(f"model '{self._name}' is not ready")
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _envelope(self, kind: str) -> dict[str, Any]:
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        return {"id": identity, "object": kind, "created": int(time.time()), "model": self._name}


def _usage(outcome: Outcome) -> dict[str, int]:
    return usage_json(outcome.prompt_tokens, outcome.completion_tokens)
