"""Turns examples into token ids with loss weights, and groups them by length into batches."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer
from training.support_tiny.dialogues import Example
from training.support_tiny.prompts import ROUTES
from training.support_tiny.tokenizer import END, PAD, ROLES, render

ROUTE_WEIGHT = 3.0
"""Loss weight of a route. A route is one token and a reply about thirty, so routes would hardly count without it."""
SPLIT_TURNS, SPLIT_WORDS = 0.3, 0.12
"""Shares of user turns with cut words, and of the words cut in them. Pieces of rare words then look familiar."""
NAMES = {route.name for route in ROUTES}
CHUNK = 2000
CUT_WORDS = 8
LENGTH_STEP = 8
TARGET_STEP = 256


@dataclass
class Encoded:
    """An example: its token ids, the start of the reply to learn, and the weight of the reply's tokens."""

    ids: np.ndarray
    reply_start: int
    weight: float


@dataclass
class Batch:
    """Input ids `[rows, length]`, flat indices of the positions that predict a reply, their targets and weights."""

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def _pieces(rng: Random, text: str) -> list[str]:
    """Cut some words of the text in pieces."""
    if rng.random() > SPLIT_TURNS:
        return [text]
    cuts = [
        i for i in range(1, len(text)) if text[i - 1].isalpha() and text[i].isalpha() and rng.random() < SPLIT_WORDS
    ]
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _prompt_segments(rng: Random, example: Example) -> list[str]:
    """Return the rendered prompt in pieces that are tokenized separately. The turn with the status stays whole."""
    segments: list[str] = []
    for turn in example.messages[:-1]:
        text = render(turn["role"], turn["content"])
        whole = turn["role"] != "user" or turn["content"].startswith("Provide the status of")
        if whole:
            segments.append(text)
        else:
            content = text.removeprefix(ROLES["user"]).removesuffix(END)
            segments += [ROLES["user"], *_pieces(rng, content), END]
    return segments


def _kept(example: Example) -> tuple[str, bool]:
    """Return the part of the reply to learn, and whether it is the whole reply."""
    reply = example.messages[-1]["content"]
    if not example.cut:
        return reply, True
    head, colon, _ = reply.partition(":")
    return (head + colon, False) if colon else (" ".join(reply.split()[:CUT_WORDS]), False)


def encode(examples: Iterable[Example], tokenizer: Tokenizer, seed: int) -> list[Encoded]:
    """Encode all examples."""
    rng = Random(seed)
    result: list[Encoded] = []
    source = iter(examples)
    while chunk := list(islice(source, CHUNK)):
        prompts = [_prompt_segments(rng, example) for example in chunk]
        replies = [_kept(example) for example in chunk]
        segments = [text for prompt in prompts for text in prompt]
        ids = iter(encoding.ids for encoding in tokenizer.encode_batch(segments))
        heads = tokenizer.encode_batch([f"{ROLES['assistant']}{text}{END if whole else ''}" for text, whole in replies])
        for prompt, head, (text, _) in zip(prompts, heads, replies, strict=True):
            tokens = [token for _ in prompt for token in next(ids)]
            weight = ROUTE_WEIGHT if text in NAMES else 1.0
            result.append(Encoded(np.array(tokens + head.ids, dtype=np.uint16), len(tokens) + 1, weight))
    return result


def _rounded(count: int, step: int) -> int:
    return -(-count // step) * step


def _batch(rows: list[Encoded], size: int, length: int, pad: int) -> Batch:
    """Build a batch of `size` rows. Missing rows and targets are padded with weight 0."""
    ids = np.full((size, length), pad, dtype=np.int64)
    spots: list[tuple[int, int, float]] = []
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        spots += [(i * length + at - 1, int(row.ids[at]), row.weight) for at in range(row.reply_start, len(row.ids))]
    spots += [(0, pad, 0.0)] * (_rounded(len(spots), TARGET_STEP) - len(spots))
    positions, targets, weights = zip(*spots, strict=True)
    return Batch(torch.from_numpy(ids), torch.tensor(positions), torch.tensor(targets), torch.tensor(weights))


def batches(rows: list[Encoded], tokenizer: Tokenizer, tokens: int, seed: int) -> list[Batch]:
    """Group rows of similar length into batches of about `tokens` tokens, in random order.

    The batches have few different shapes, because the matrix library keeps memory for every shape it has seen.
    """
    rng = Random(seed)
    pad = tokenizer.token_to_id(PAD)
    result: list[Batch] = []
    waiting: list[Encoded] = []
    length = 0
    for row in sorted(rows, key=lambda row: (_rounded(len(row.ids), LENGTH_STEP), rng.random())):
        length = _rounded(len(row.ids), LENGTH_STEP)
        waiting.append(row)
        size = tokens // length
        while len(waiting) >= size:
            result.append(_batch(waiting[:size], size, length, pad))
            waiting = waiting[size:]
    if waiting:
        result.append(_batch(waiting, tokens // length, length, pad))
    rng.shuffle(result)
    return result
