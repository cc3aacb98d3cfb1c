"""The byte-level BPE tokenizer with its chat template."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, END = "<|pad|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
VOCABULARY = 4096
MAX_LENGTH = 2048

WORDS = r" ?\p{L}+| ?[^\s\p{L}\p{N}]|\p{N}|\s"
"""Pattern of words. Digits and signs are single tokens, so the model can copy unseen numbers piece by piece."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- set content = message['content'] or '' -%}
{%- if content is not string -%}
{%- set content = content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\n') -%}
{%- endif -%}
{%- set content = content | replace('<|', '< |') -%}
{{- '<|' + message['role'] + '|>' -}}
{{- content if message['role'] == 'assistant' else ' ' + content -}}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def render(role: str, content: str) -> str:
    """Render a message as the chat template does."""
    content = content.replace("<|", "< |")
    return f"{ROLES[role]}{content if role == 'assistant' else ' ' + content}{END}"


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train the tokenizer on rendered text."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, *ROLES.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Save the tokenizer for `AutoTokenizer.from_pretrained(folder)`."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES.values()),
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
