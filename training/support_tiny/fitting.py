"""The training loop. Several single-threaded processes average their gradients at every step.

Two processes train on twice as many dialogues as one process with two threads, because matrices this small don't
benefit from a second thread.
"""

import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import nn
from training.support_tiny.dialogues import Examples
from training.support_tiny.encoding import Batch, batches, encode
from training.support_tiny.model import Plan, build_model
from training.support_tiny.phrases import load_phrases
from transformers import LlamaForCausalLM

_SMOOTHING = 0.98


def fast_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 matrices in hardware. Otherwise float32 is faster."""
    return torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]


def fit(plan: Plan, tokenizer: Path, folder: Path) -> dict[str, float]:
    """Train for one pass over the dialogues and save the weights. Returns `tokens`, `steps` and `seconds`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = processes.get_context("spawn").SimpleQueue()
    processes.spawn(_worker, (plan, tokenizer, folder, port, queue), nprocs=plan.processes)
    return queue.get()


def _worker(
    rank: int, plan: Plan, tokenizer_file: Path, folder: Path, port: int, queue: "processes.SimpleQueue"
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=plan.processes)
    console = Console(quiet=rank > 0)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    data, tokens = _share(rank, plan, tokenizer)
    totals = torch.tensor([tokens, -len(data)])
    dist.all_reduce(totals[:1])
    dist.all_reduce(totals[1:], dist.ReduceOp.MAX)
    tokens, steps = int(totals[0]), -int(totals[1])
    model = build_model(plan, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"{parameters:,} parameters, {tokens:,} tokens, {steps:,} steps, {precision()}")
    torch.manual_seed(plan.seed + rank)
    started = time.monotonic()
    _learn(model, data[:steps], plan, console)
    if rank == 0:
        model.save_pretrained(folder)
        queue.put({"tokens": tokens, "steps": steps, "seconds": time.monotonic() - started})
    dist.destroy_process_group()


def precision() -> str:
    """Return the number format of matrix multiplications."""
    return "bfloat16 autocast" if fast_bfloat16() else "float32"


def _share(rank: int, plan: Plan, tokenizer: Tokenizer) -> tuple[list[Batch], int]:
    """Return the batches of one process, with its own dialogues, and their number of tokens."""
    seed = plan.seed + 1000 * rank
    examples = Examples(load_phrases(), seed).stream(plan.examples // plan.processes)
    rows = encode(examples, tokenizer, seed)
    return batches(rows, tokenizer, plan.batch_tokens, seed), sum(len(row.ids) for row in rows)


def _rate(step: int, steps: int, plan: Plan) -> float:
    """Return the factor of the learning rate: linear warm-up, then cosine decay to 2 %."""
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, steps - plan.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices, which needs far fewer dialogues than AdamW, and AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    rate, decay = plan.learning_rate, plan.weight_decay
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


def _loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Return the weighted cross entropy. Logits are computed only for the tokens of replies.

    Rows are padded on the right and attention is causal, so no attention mask is needed.
    """
    hidden = model.model(batch.ids).last_hidden_state.flatten(0, 1)
    logits = model.lm_head(hidden[batch.positions]).float()
    losses = nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


def _average_gradients(model: nn.Module) -> None:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, piece in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


@contextmanager
def _training(model: LlamaForCausalLM, embedding_dropout: float) -> Iterator[None]:
    """Put the model into training mode. Backward passes on a CPU are twice as fast with eager attention."""
    dropout = nn.Dropout(embedding_dropout)
    hook = model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: dropout(output))
    model.train()
    model.set_attn_implementation("eager")
    yield
    hook.remove()
    model.set_attn_implementation("sdpa")
    model.eval()


def _learn(model: LlamaForCausalLM, data: list[Batch], plan: Plan, console: Console) -> None:
    optimizers = _optimizers(model, plan)
    bfloat16, average = fast_bfloat16(), math.nan
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
    with (
        _training(model, plan.embedding_dropout),
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        task = progress.add_task("training", total=len(data), loss=average)
        for step, batch in enumerate(data):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = plan.learning_rate * _rate(step, len(data), plan)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = _loss(model, batch)
            loss.backward()
            _average_gradients(model)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            average = loss.item() if step == 0 else _SMOOTHING * average + (1 - _SMOOTHING) * loss.item()
            progress.update(task, advance=1, loss=average)
            if not console.is_terminal and step % 100 == 99:
                console.print(f"step {step + 1} of {len(data)}, loss {average:.3f}")
