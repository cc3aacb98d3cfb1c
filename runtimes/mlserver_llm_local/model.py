"""Wraps a transformers causal language model. All methods block; call them from a worker thread."""

import functools
import threading
from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from mlserver_chat import InvalidInput, Message
from mlserver_chat.errors import CallerLeft
from mlserver_chat.tensors import dumps

from .conversation import ChatFormat, count_turns, without_oldest
from .loading import load, threads_for
from .options import GenerationOptions
from .pieces import TextPieces
from .scoring import log_probabilities
from .settings import TransformersSettings

_CHARS_OF_A_TOKEN = 100
"""More characters than a token has on average, with any tokenizer and text."""
_LONGEST_CHOICE = 64
"""Tokens of the context that stay free for a choice to score."""
_UNLIMITED = 2**20
"""Context of a model whose config names none, in tokens."""
_TURN = "the conversation's newest turn"


@dataclass(frozen=True)
class Generation:
    """A request to generate an answer.

    Args:
        options: the generation options.
        emit: called with each piece of the text.
        unwanted: set when the caller no longer wants the answer.
    """

    options: GenerationOptions
    emit: Callable[[str], None]
    unwanted: threading.Event


@dataclass(frozen=True)
class Outcome:
    """The end of a generation: its token counts, and `stop` or `length` as its reason."""

    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


class _Watcher(StoppingCriteria):
    """Emits the text of every token. Ends the generation at a stop text or when its answer is unwanted."""

    def __init__(self, generation: Generation, pieces: TextPieces):
        self._generation = generation
        self._pieces = pieces

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        if piece := self._pieces.add(int(input_ids[0, -1])):
            self._generation.emit(piece)
        ends = self._pieces.stopped or self._generation.unwanted.is_set()
        return torch.full((input_ids.shape[0],), ends, device=input_ids.device, dtype=torch.bool)


class ChatModel:
    """A loaded model with its tokenizer.

    Args:
        settings: the model, its device and its defaults.
        folder: a relative `model` resolves against it.

    Raises:
        SettingsError: the model can't be loaded.
    """

    def __init__(self, settings: TransformersSettings, folder: Path):
        self._model, tokenizer = load(settings, folder)
        self._format = ChatFormat(tokenizer, self._model.generation_config.eos_token_id)
        self._threads = settings.threads or threads_for(self._model.num_parameters())
        made_for: int | None = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._context = min(made_for or _UNLIMITED, settings.max_model_len or _UNLIMITED)

    @property
    def on_cpu(self) -> bool:
        """Whether the model computes on the CPU."""
        return self._model.device.type == "cpu"

    def generate(self, messages: Sequence[Message], generation: Generation) -> Outcome:
        """Answer a conversation, or the newest turns of it that the context holds.

        Raises:
            InvalidInput: the template refuses a message, or the newest turn has more tokens than the context holds.
            CallerLeft: the answer became unwanted before its first token.
        """
        options = generation.options
        tools = options.tools if options.tool_choice != "none" else []
        _, prompt = self._fitting(messages, tools, options.max_tokens, generation.unwanted)
        room = self._room(len(prompt))
        pieces = TextPieces(self._format.text, options.stop)
        input_ids = torch.tensor([prompt], device=self._model.device)
        _check_wanted(generation.unwanted)
        with self._computing(options.seed):
            output = self._model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                stopping_criteria=StoppingCriteriaList([_Watcher(generation, pieces)]),
                eos_token_id=self._format.end_tokens,
                pad_token_id=self._format.pad_token,
                max_new_tokens=room if options.max_tokens < 0 else min(room, options.max_tokens),
                **options.sampling(),
            )
        if rest := pieces.end():
            generation.emit(rest)
        answer: list[int] = output[0, len(prompt) :].tolist()
        stopped = pieces.stopped or answer[-1] in self._format.end_tokens
        return Outcome(len(prompt), len(answer), "stop" if stopped else "length")

    def score(
        self, messages: Sequence[Message], choices: Sequence[str], most_tokens: int, unwanted: threading.Event
    ) -> list[float]:
        """Return the log-probability of each choice as the whole answer, including the end of the turn.

        Args:
            messages: the conversation. The model reads the newest turns that its context holds.
            choices: the answers to score, at least one.
            most_tokens: how many tokens the choices may have together.
            unwanted: set when the caller no longer wants the scores.

        Raises:
            InvalidInput: the template refuses a message, the choices have too many tokens, or the newest turn and a
                choice have more than the context holds.
            CallerLeft: the scores became unwanted.
        """
        if sum(map(len, choices)) > most_tokens * _CHARS_OF_A_TOKEN:
            raise _too_many_choice_tokens(most_tokens)
        messages, prompt = self._fitting(messages, [], _LONGEST_CHOICE, unwanted)
        answers: list[list[int]] = []
        for choice in choices:
            _check_wanted(unwanted)
            answers.append(self._format.answer(messages, prompt, choice))
        if sum(map(len, answers)) > most_tokens:
            raise _too_many_choice_tokens(most_tokens)
        self._room(len(prompt), max(map(len, answers)))
        with self._computing():
            check = functools.partial(_check_wanted, unwanted)
            return log_probabilities(self._model, prompt, answers, self._context, check)

    def _fitting(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], answer: int, unwanted: threading.Event
    ) -> tuple[Sequence[Message], list[int]]:
        """Drop the oldest turns until the context has room for the answer. The newest turn always stays.

        Args:
            messages: the conversation.
            tools: the tools of the request.
            answer: tokens of the answer, or -1 for any number. At most a quarter of the context is kept free.
            unwanted: set when the caller no longer wants the answer.

        Returns:
            The conversation that is left, and its tokens.
        """
        most = self._context // 4
        limit = self._context - (most if answer < 0 else min(answer, most))

        @functools.cache
        def tokens(dropped: int) -> list[int]:
            _check_wanted(unwanted)
            return self._format.prompt(without_oldest(messages, dropped), tools)

        def fits(dropped: int) -> bool:
            return self._may_fit(without_oldest(messages, dropped), tools) and len(tokens(dropped)) <= limit

        last = count_turns(messages) - 1
        dropped = 0 if last == 0 or fits(0) else bisect_left(range(last), True, lo=1, key=fits)
        kept = without_oldest(messages, dropped)
        # Refuse it here: the tokenizer would need minutes to count the tokens.
        if not self._may_fit(kept, tools):
            size = f"{len(kept)} messages and {_characters(kept, tools)} characters"
            raise InvalidInput(f"{_TURN} has {size}; the model's context holds {self._context} tokens")
        return kept, tokens(dropped)

    def _may_fit(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> bool:
        """Whether the context might hold so many messages and characters."""
        most = self._context * _CHARS_OF_A_TOKEN
        return len(messages) <= self._context and _characters(messages, tools) <= most

    def close(self) -> None:
        """Free the weights."""
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @contextmanager
    def _computing(self, seed: int | None = None) -> Generator[None]:
        """Set the number of threads and the seed for a computation without gradients."""
        # Models with different numbers of threads share this worker.
        torch.set_num_threads(self._threads)
        # Restore the random state afterwards, or one caller's seed would make the next answers predictable.
        devices = [] if self.on_cpu else [self._model.device]
        with torch.inference_mode(), torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield

    def _room(self, prompt: int, answer: int = 1) -> int:
        """Return the number of tokens that the context has left after the prompt.

        Raises:
            InvalidInput: fewer than `answer` are left.
        """
        if prompt + answer > self._context:
            needed = f"{prompt} tokens" + (f" and a choice of {answer}" if answer > 1 else "")
            raise InvalidInput(f"{_TURN} has {needed}; the model's context holds {self._context}")
        return self._context - prompt


def _characters(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> int:
    parts = sum(len(part.value) for message in messages for part in message.parts)
    calls = sum(len(call) for message in messages for call in message.tool_calls)
    ids = sum(len(message.tool_call_id or "") for message in messages)
    return parts + calls + ids + (len(dumps(list(tools))) if tools else 0)


def _check_wanted(unwanted: threading.Event) -> None:
    if unwanted.is_set():
        raise CallerLeft


def _too_many_choice_tokens(most: int) -> InvalidInput:
    return InvalidInput(f"tensor 'choices' has too many tokens; expected at most {most} together")
