"""Trains the model: generates dialogues, learns the tokenizer, then one pass over the examples."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import nn
from training.support_tiny.dialogues import Examples
from training.support_tiny.encoding import Batch, batches, encode
from training.support_tiny.phrases import load_phrases
from training.support_tiny.tokenizer import END, MAX_LENGTH, PAD, render, save_tokenizer, train_tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

TOKENIZER_EXAMPLES = 30_000


@dataclass(frozen=True)
class Plan:
    """What decides the result, besides the phrases."""

    examples: int = 220_000
    seed: int = 7
    batch_tokens: int = 3_000
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.05
    embedding_dropout: float = 0.1
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    threads: int = 2


@dataclass(frozen=True)
class Outcome:
    """What the model card says about a training run."""

    examples: int
    parameters: int
    tokens: int
    seconds: float
    steps: int
    precision: str


def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware; elsewhere float32 is faster."""
    return torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]


def build_model(plan: Plan, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A small Llama with random weights."""
    torch.manual_seed(plan.seed)
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=plan.hidden,
        intermediate_size=plan.hidden * 11 // 4,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False, max_new_tokens=96)
    return model


def _rate(step: int, steps: int, plan: Plan) -> float:
    """Share of the learning rate: linear warm-up, then a cosine down to 2 %."""
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, steps - plan.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, which learns from far fewer dialogues than AdamW does; AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    rate, decay = plan.learning_rate, plan.weight_decay
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Weighted cross entropy, with logits only where a reply token is predicted.

    Rows are padded on the right and attention is causal, so no attention mask is needed.
    """
    hidden = model.model(batch.ids).last_hidden_state.flatten(0, 1)
    logits = model.lm_head(hidden[batch.positions]).float()
    losses = nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


def _fit(model: LlamaForCausalLM, data: list[Batch], plan: Plan, *, bfloat16: bool, console: Console) -> None:
    """One pass over the batches."""
    optimizers = _optimizers(model, plan)
    dropout = nn.Dropout(plan.embedding_dropout)
    hook = model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: dropout(output))
    model.train()
    model.set_attn_implementation("eager")  # on a CPU, twice as fast backwards as the fused kernel at these lengths
    loss_column = TextColumn("loss {task.fields[loss]:.3f}")
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), loss_column, TimeRemainingColumn())
    average = 0.0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=len(data), loss=math.nan)
        for step, batch in enumerate(data):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = plan.learning_rate * _rate(step, len(data), plan)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = loss_of(model, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
            progress.update(task, advance=1, loss=average)
            if not console.is_terminal and step % 100 == 99:
                console.print(f"step {step + 1} of {len(data)}, loss {average:.3f}")
    hook.remove()
    model.set_attn_implementation("sdpa")
    model.eval()


def train(plan: Plan, folder: Path, console: Console, *, bfloat16: bool | None = None) -> Outcome:
    """Trains by the plan and writes weights, tokenizer and chat template to `folder`."""
    torch.set_num_threads(plan.threads)
    bfloat16 = fast_bfloat16() if bfloat16 is None else bfloat16
    phrases = load_phrases()
    console.print(f"writing {plan.examples:,} dialogues about {len(phrases.topics)} topics")
    sample = Examples(phrases, plan.seed + 1).stream(TOKENIZER_EXAMPLES)
    turns = (turn for example in sample for turn in example.messages)
    tokenizer = train_tokenizer(render(turn["role"], turn["content"]) for turn in turns)
    rows = encode(Examples(phrases, plan.seed).stream(plan.examples), tokenizer, plan.seed)
    data = batches(rows, tokenizer, plan.batch_tokens, plan.seed)
    tokens = sum(len(row.ids) for row in rows)
    model = build_model(plan, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    precision = "bfloat16 autocast" if bfloat16 else "float32"
    console.print(f"{parameters:,} parameters, {tokens:,} tokens, {len(data):,} steps, {precision}")
    started = time.monotonic()
    _fit(model, data, plan, bfloat16=bfloat16, console=console)
    seconds = time.monotonic() - started
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return Outcome(plan.examples, parameters, tokens, seconds, len(data), precision)
