"""Scores don't depend on the size of a step, and scoring ends between two steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mlserver_llm_local import scoring

PROMPT = list(range(5, 45))
ANSWERS = [[7], [8, 9, 1], [7, 7, 7, 7, 7, 1], [30], [12, 1], list(range(60, 90)), [8, 9, 2]]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[Any]:
    with torch.inference_mode():
        yield AutoModelForCausalLM.from_pretrained(tiny_model)


def expected(model: Any) -> list[float]:
    scores = []
    for answer in ANSWERS:
        logprobs = model(torch.tensor([PROMPT + answer])).logits[0].log_softmax(-1)
        scores.append(sum(float(logprobs[len(PROMPT) - 1 + i, token]) for i, token in enumerate(answer)))
    return scores


@pytest.mark.parametrize(
    ("prompt_step", "cache", "logits"),
    [(512, 4096, 2**25), (7, 4096, 2**25), (40, 1, 2**25), (512, 100, 3000), (512, 4096, 1), (7, 100, 3000)],
)
def test_scores_do_not_depend_on_the_size_of_a_step(model, monkeypatch, prompt_step, cache, logits):
    monkeypatch.setattr(scoring, "_PROMPT_STEP", prompt_step)
    monkeypatch.setattr(scoring, "_LEAST_CACHE", cache)
    monkeypatch.setattr(scoring, "_LOGITS", logits)
    scores = scoring.log_probabilities(model, PROMPT, ANSWERS, 0, lambda: None)
    assert scores == pytest.approx(expected(model), abs=1e-4)


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 7), (90, [2, 2, 1, 1, 1]), (10_000, [7])])
def test_a_batch_keeps_to_its_number_of_tokens(most, sizes):
    lengths = [len(answer) for answer in ANSWERS]
    batches = list(scoring._batches(lengths, len(PROMPT), most))
    assert sorted(index for batch in batches for index in batch) == list(range(len(ANSWERS)))
    assert [len(batch) for batch in batches] == sizes
    for batch in batches:
        assert len(batch) == 1 or len(batch) * (len(PROMPT) + max(lengths[index] for index in batch)) <= most


class _Unwanted(Exception):
    pass


@pytest.mark.parametrize("steps", (0, 1, 3, 4, 5, 9))
def test_an_unwanted_scoring_ends_before_its_next_step(model, monkeypatch, steps):
    monkeypatch.setattr(scoring, "_PROMPT_STEP", 10)
    monkeypatch.setattr(scoring, "_LEAST_CACHE", 90)
    monkeypatch.setattr(scoring, "_LOGITS", 3000)
    calls = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))

    def check() -> None:
        if len(calls) == steps:
            raise _Unwanted

    with pytest.raises(_Unwanted):
        scoring.log_probabilities(model, PROMPT, ANSWERS, 0, check)
    assert len(calls) == steps
