"""Trains the tokenizer on generated dialogues, then the model."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from training.support_tiny.dialogues import Examples
from training.support_tiny.fitting import fit, precision
from training.support_tiny.model import Plan, build_model
from training.support_tiny.phrases import load_phrases
from training.support_tiny.tokenizer import render, save_tokenizer, train_tokenizer

TOKENIZER_EXAMPLES = 30_000


@dataclass(frozen=True)
class Outcome:
    """Facts about a training run for the model card."""

    examples: int
    parameters: int
    tokens: int
    seconds: float
    steps: int
    precision: str


def train(plan: Plan, folder: Path, console: Console) -> Outcome:
    """Train by the plan, and save weights, tokenizer and chat template to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    phrases = load_phrases()
    console.print(f"playing {plan.examples:,} dialogues about {len(phrases.topics)} topics")
    sample = Examples(phrases, plan.seed + 1).stream(TOKENIZER_EXAMPLES)
    turns = (turn for example in sample for turn in example.messages)
    tokenizer = train_tokenizer(render(turn["role"], turn["content"]) for turn in turns)
    save_tokenizer(tokenizer, folder)
    done = fit(plan, folder / "tokenizer.json", folder)
    parameters = sum(parameter.numel() for parameter in build_model(plan, tokenizer).parameters())
    return Outcome(plan.examples, parameters, int(done["tokens"]), done["seconds"], int(done["steps"]), precision())
