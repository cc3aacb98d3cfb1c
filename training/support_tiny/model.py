"""The training plan, and the small Llama that is trained."""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from training.support_tiny.tokenizer import END, MAX_LENGTH, PAD
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Plan:
    """Hyperparameters of a training run."""

    examples: int = 340_000
    seed: int = 7
    batch_tokens: int = 2_500
    """Tokens in a batch, per process."""
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.05
    embedding_dropout: float = 0.1
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    processes: int = 2


def build_model(plan: Plan, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Build a small Llama with random weights that depend only on the seed."""
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
