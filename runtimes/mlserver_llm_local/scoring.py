"""Scores answers behind a prompt, in steps of bounded size."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

_PROMPT_STEP = 512
"""Tokens of the prompt that the model reads in one step."""
_LEAST_CACHE = 4096
"""Tokens that the cache of a batch may hold if the model's context is shorter."""
_LOGITS = 2**25
"""Logits that one step may compute, 128 MiB."""


def log_probabilities(
    model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]], context: int, check: Callable[[], None]
) -> list[float]:
    """Score each answer as the continuation of `prompt`. The model reads the prompt once.

    Args:
        model: a causal language model of transformers.
        prompt: the tokens before the answers, at least one.
        answers: the tokens of each answer, at least one.
        context: the length of the model's context, in tokens. It bounds the cache of a batch.
        check: called before each step. It may raise to end the computation.

    Returns:
        The log-probability of each answer, summed over its tokens.
    """
    cache, first = _read_prompt(model, prompt, check)
    scores = [float(first[answer[0]]) for answer in answers]
    batches = list(_batches([len(answer) for answer in answers], len(prompt), max(context, _LEAST_CACHE)))
    for number, batch in enumerate(batches):
        if len(answers[batch[-1]]) == 1:
            continue
        own = copy.deepcopy(cache) if number < len(batches) - 1 else cache
        own.batch_repeat_interleave(len(batch))
        rest = _score_batch(model, own, [answers[index] for index in batch], check)
        for index, score in zip(batch, rest, strict=True):
            scores[index] += score
    return scores


def _read_prompt(model: Any, prompt: Sequence[int], check: Callable[[], None]) -> tuple[Any, torch.Tensor]:
    """Return the cache after the prompt, and the log-probabilities of the next token, shape [vocabulary]."""
    output = cache = None
    for start in range(0, len(prompt), _PROMPT_STEP):
        check()
        tokens = torch.tensor([prompt[start : start + _PROMPT_STEP]], device=model.device)
        output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
    assert output is not None
    return cache, output.logits[0, -1].float().log_softmax(-1).double().cpu()


def _batches(lengths: Sequence[int], prompt: int, most: int) -> Iterator[list[int]]:
    """Group answers of similar length into batches, shortest first.

    Args:
        lengths: the tokens of each answer.
        prompt: the tokens of the prompt.
        most: the tokens that a batch's cache may hold. A single answer may exceed it.

    Yields:
        The indices of the answers in a batch.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * (prompt + lengths[index]) > most:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def _score_batch(model: Any, cache: Any, answers: Sequence[Sequence[int]], check: Callable[[], None]) -> list[float]:
    """Return the log-probability of each answer without its first token."""
    longest = max(map(len, answers))
    # Padding needs no mask: it is on the right, and attention is causal.
    rows = torch.tensor([[*answer, *[0] * (longest - len(answer))] for answer in answers], device=model.device)
    lengths = torch.tensor([[len(answer)] for answer in answers])
    scores = torch.zeros(len(answers), dtype=torch.double)
    width = max(1, _LOGITS // (len(answers) * model.config.get_text_config().vocab_size))
    for start in range(0, longest - 1, width):
        check()
        end = min(start + width, longest - 1)
        logits = model(rows[:, start:end], past_key_values=cache, use_cache=True).logits.float()
        following = rows[:, start + 1 : end + 1].unsqueeze(-1)
        found = logits.log_softmax(-1).gather(-1, following).squeeze(-1).double().cpu()
        counted = torch.arange(start + 1, end + 1) < lengths
        scores += (found * counted).sum(-1)
    return [float(score) for score in scores]
