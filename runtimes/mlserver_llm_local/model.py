"""A causal language model of transformers and what is asked of it. Everything here blocks."""

import functools
import threading
from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from mlserver_chat import InvalidInput, Message

from .conversation import ChatFormat, count_turns, without_oldest
from .loading import load, threads_for
from .options import GenerationOptions
from .pieces import TextPieces
from .settings import TransformersSettings

_CHARS_OF_A_TOKEN = 100
"""More characters than any tokenizer puts into one token on average."""
_LONGEST_CHOICE = 64
"""Tokens kept free for a choice that is scored."""
_ENDLESS = 2**20
"""Stands for a context without a limit."""
_TURN = "the conversation's newest turn"


@dataclass
class Job:
    """One generation: how, where its text goes, and whether anybody still waits for it."""

    options: GenerationOptions
    emit: Callable[[str], None]
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Outcome:
    """How a generation ended."""

    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


class _Watcher(StoppingCriteria):
    """Sees every token of a generation: hands its text on, and ends it on a stop text or when nobody waits for it."""

    def __init__(self, job: Job, pieces: TextPieces):
        self._job = job
        self._pieces = pieces

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        if piece := self._pieces.add(int(input_ids[0, -1])):
            self._job.emit(piece)
        ends = self._pieces.stopped or self._job.cancelled.is_set()
        return torch.full((input_ids.shape[0],), ends, device=input_ids.device, dtype=torch.bool)


class ChatModel:
    """A loaded model.

    Raises:
        SettingsError: while it is built, when it can't be loaded.
    """

    def __init__(self, settings: TransformersSettings, folder: Path):
        self._model, tokenizer = load(settings, folder)
        self._format = ChatFormat(tokenizer, self._model.generation_config.eos_token_id)
        self._threads = settings.threads or threads_for(self._model.num_parameters())
        made_for: int | None = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._context = min(made_for or _ENDLESS, settings.max_model_len or _ENDLESS)

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the CPU."""
        return self._model.device.type == "cpu"

    def generate(self, messages: Sequence[Message], job: Job) -> Outcome:
        """Answer `messages`, or the newest turns of them that the context holds; the text goes to `job.emit`.

        Raises:
            InvalidInput: a message the template refuses, or a turn of more tokens than the context holds.
        """
        options = job.options
        tools = options.tools if options.tool_choice != "none" else []
        _, prompt = self._fitting(messages, tools, options.max_tokens)
        room = self._room(len(prompt))
        pieces = TextPieces(self._format.text, options.stop)
        input_ids = torch.tensor([prompt], device=self._model.device)
        with self._computing(options.seed):
            output = self._model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                stopping_criteria=StoppingCriteriaList([_Watcher(job, pieces)]),
                eos_token_id=self._format.end_tokens,
                pad_token_id=self._format.pad_token,
                max_new_tokens=room if options.max_tokens < 0 else min(room, options.max_tokens),
                **options.sampling(),
            )
        if rest := pieces.end():
            job.emit(rest)
        answer: list[int] = output[0, len(prompt) :].tolist()
        stopped = pieces.stopped or answer[-1] in self._format.end_tokens
        return Outcome(len(prompt), len(answer), "stop" if stopped else "length")

    def score(self, messages: Sequence[Message], choices: Sequence[str]) -> list[float]:
        """The log-probability of each choice as the whole answer, the end of the turn included.

        The prompt goes through the model once, then all choices in one batch behind it.

        Raises:
            InvalidInput: a message the template refuses, or more tokens than the context holds.
        """
        messages, prompt = self._fitting(messages, [], _LONGEST_CHOICE)
        answers = [self._format.answer(messages, prompt, choice) for choice in choices]
        longest = max(map(len, answers))
        self._room(len(prompt), longest)
        device = self._model.device
        # Padding is on the right: no token sees what comes after it, so it needs no mask.
        rows = torch.tensor([answer + [0] * (longest - len(answer)) for answer in answers], device=device)
        counted = torch.tensor([[i < len(answer) for i in range(longest)] for answer in answers])
        with self._computing():
            first = self._model(torch.tensor([prompt], device=device), use_cache=True, logits_to_keep=1)
            logits = first.logits.expand(len(rows), -1, -1)
            if longest > 1:
                cache = first.past_key_values
                cache.batch_repeat_interleave(len(rows))
                rest = self._model(rows[:, :-1], past_key_values=cache, use_cache=True)
                logits = torch.cat([logits, rest.logits], dim=1)
            logprobs = logits.float().log_softmax(-1).gather(-1, rows.unsqueeze(-1)).squeeze(-1).cpu().double()
        return [float(score) for score in (logprobs * counted).sum(-1)]

    def _fitting(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], answer: int
    ) -> tuple[Sequence[Message], list[int]]:
        """The conversation and its tokens, without as many of the oldest turns as leave room for the answer: `answer`
        tokens (-1: any number), but no more than a quarter of the context. The newest turn always stays."""
        most = self._context // 4
        limit = self._context - (most if answer < 0 else min(answer, most))

        @functools.cache
        def tokens(dropped: int) -> list[int]:
            return self._format.prompt(without_oldest(messages, dropped), tools)

        def fits(dropped: int) -> bool:
            size = _characters(without_oldest(messages, dropped))
            return size <= self._context * _CHARS_OF_A_TOKEN and len(tokens(dropped)) <= limit

        last = count_turns(messages) - 1
        dropped = 0 if last == 0 or fits(0) else bisect_left(range(last), True, lo=1, key=fits)
        kept = without_oldest(messages, dropped)
        # Refused before the tokenizer sees it, which would take minutes to count what can't fit anyway.
        if (size := _characters(kept)) > self._context * _CHARS_OF_A_TOKEN:
            raise InvalidInput(f"{_TURN} has {size} characters; the model's context holds {self._context} tokens")
        return kept, tokens(dropped)

    def close(self) -> None:
        """Free the weights."""
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @contextmanager
    def _computing(self, seed: int | None = None) -> Generator[None]:
        # Models with other numbers of threads take turns in this thread.
        torch.set_num_threads(self._threads)
        # A seed counts for this computation alone: what comes after it must not become predictable.
        devices = [] if self.on_cpu else [self._model.device]
        with torch.inference_mode(), torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield

    def _room(self, prompt: int, answer: int = 1) -> int:
        """How many tokens the context holds behind a prompt of `prompt` tokens, at least `answer`."""
        if prompt + answer > self._context:
            needed = f"{prompt} tokens" + (f" and a choice of {answer}" if answer > 1 else "")
            raise InvalidInput(f"{_TURN} has {needed}; the model's context holds {self._context}")
        return self._context - prompt


def _characters(messages: Sequence[Message]) -> int:
    return sum(len(part.value) for message in messages for part in message.parts)
