"""Scores answers behind a prompt, in steps of bounded size."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

_PROMPT_STEP = 512
"""Tokens of the prompt that go through the model at once."""
_LEAST_CACHE = 4096
"""Tokens that a cache may hold, even where the model's context is shorter."""
_LOGITS = 2**25
"""Logits that a step may compute: 128 MiB."""


def log_probabilities(
    model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]], context: int, check: Callable[[], None]
) -> list[float]:
    """Score each answer as the continuation of `prompt`. The prompt goes through the model once.

    Args:
        model: a causal language model of transformers.
        prompt: tokens before the answers, at least one.
        answers: the tokens of each answer, at least one.
        context: tokens that the model's context holds. No batch of answers needs a larger cache.
        check: called before each step; it ends the computation by raising.

    Returns:
        The log-probability of each answer, the sum over its tokens.
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
    """The model's cache of the prompt, and the log-probabilities of the token behind it, shape [vocabulary]."""
    output = cache = None
    for start in range(0, len(prompt), _PROMPT_STEP):
        check()
        tokens = torch.tensor([prompt[start : start + _PROMPT_STEP]], device=model.device)
        output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
    assert output is not None
    return cache, output.logits[0, -1].float().log_softmax(-1).double().cpu()


def _batches(lengths: Sequence[int], prompt: int, most: int) -> Iterator[list[int]]:
    """Indices of answers of similar length, shortest first, so that a batch's cache holds at most `most` tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * (prompt + lengths[index]) > most:
            yield batch
            batch = []
        batch.append(index)
    yield batch


def _score_batch(model: Any, cache: Any, answers: Sequence[Sequence[int]], check: Callable[[], None]) -> list[float]:
    """The log-probability of each answer behind its first token."""
    longest = max(map(len, answers))
    # Padding is on the right: no token sees what comes after it, so it needs no mask.
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
