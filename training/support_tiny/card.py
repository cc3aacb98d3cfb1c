"""Writes the model card, `README.md`, from the model's `report.json`.

python -m training.support_tiny.card --model models/support-tiny
"""

import argparse
import json
from pathlib import Path

from training.support_tiny.evaluate import Report, rows

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [demonstration]
---

# support-tiny

**A demonstration model, not for real support.** It lets the support desk of this repository run offline on any
machine: it picks a route, repeats an issue's status, and gives a first piece of advice on {topics} everyday IT topics.
It knows nothing else. It was trained from random weights on English dialogues that a script writes. Its advice hasn't
been checked against your equipment.

## What it can do

| job | the prompt ends with | reply |
|---|---|---|
| choose a route | the last five messages, then `Route:` | `status` or `support`, compared by log-probability |
| answer a status question | `Provide the status of BUG-771. It is: in progress` | repeats number and status |
| answer a support question | the user's turn | short steps that name the topic; more of them when asked again |

The exact prompts, each with its system message, are in `training/support_tiny/prompts.py`; without them its
replies make no sense.

## Model

A Llama of {parameters:,} parameters in float32 safetensors: hidden size {hidden}, {layers} layers, tied embeddings,
2,048 positions (trained on conversations of up to about 400 tokens). A byte-level BPE tokenizer with 4,096 entries in
which every digit and every sign stands alone, so that numbers and states never seen before can be copied. The chat
template takes any order of system, user and assistant messages; special tokens written in a message stay plain text.
`generate()` stops at the end of a reply.

## Data

Dialogues of one to six turns, made from the phrase lists in `training/support_tiny/topics/` and
`training/support_tiny/phrases/`: complaints, keywords, openings, backstories, follow-ups, status questions and small
talk, with typos, missing words and invented words. States are mostly random words, so that the model has to copy them.
No data of real persons, no text from the internet.

## Training

```
make train-demo-model
```

runs `python -m training.support_tiny.train`, which writes the dialogues, learns the tokenizer, trains, measures and
writes this page. The seed is fixed: the same machine and versions give the same weights. This one took {examples:,}
dialogues, {tokens:,} tokens and {steps:,} steps, in {minutes:.0f} minutes on 2 CPU cores ({precision}).

## Held-out results

The {asked} conversations of `training/support_tiny/heldout.jsonl` were written by hand, apart from the training
phrases. Replies are greedy.

| | right | target |
|---|---|---|
{results}

To measure again, run `python -m training.support_tiny.evaluate`. All counts are in `report.json`.

## Use another model

One line of `model-settings.json` in this folder names the model: any Hugging Face id or folder. A real language model
answers the same prompts, and the desk needs no other change.

## Licence

Apache-2.0, like the rest of this repository.
"""


def write_card(folder: Path) -> None:
    """Fill the card with the numbers of `report.json`."""
    sections = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report, training = Report(**sections["held_out"]), sections["training"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    results = "\n".join(f"| {what} | {result} | at least {target} |" for what, result, target in rows(report))
    card = CARD.format(
        **training,
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        minutes=training["seconds"] / 60,
        topics=len(report.topics),
        asked=report.routes,
        results=results,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/support-tiny"))
    write_card(parser.parse_args().model)


if __name__ == "__main__":
    main()
