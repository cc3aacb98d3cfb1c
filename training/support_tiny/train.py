"""Builds the demo model from scratch: dialogues, tokenizer, training, held-out report, model card.

    python -m training.support_tiny.train

At the end, each file of the model folder is replaced by a rename. Other files there, such as model-settings.json, stay.
"""

import argparse
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from training.support_tiny.card import write_card
from training.support_tiny.evaluate import HELD_OUT, Model, evaluate, read_items, show, write_section
from training.support_tiny.learning import train
from training.support_tiny.model import Plan


def install(built: Path, folder: Path) -> None:
    """Move the files of `built` over those of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(built.iterdir()):
        path.chmod(0o644)
        os.replace(path, folder / path.name)
    built.rmdir()


def build(plan: Plan, folder: Path, console: Console) -> None:
    """Train, evaluate and install the model."""
    built = folder.parent / f".{folder.name}.new"
    shutil.rmtree(built, ignore_errors=True)
    outcome = train(plan, built, console)
    report, _ = evaluate(Model(built), read_items(HELD_OUT), HELD_OUT.name, console)
    show(report, console)
    write_section(built, "training", asdict(outcome))
    write_section(built, "held_out", asdict(report))
    write_card(built)
    install(built, folder)
    console.print(f"the model is in {folder}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("models/support-tiny"), help="the model folder")
    parser.add_argument("--examples", type=int, default=Plan.examples, help="dialogues to train on")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    arguments = parser.parse_args()
    build(Plan(examples=arguments.examples, seed=arguments.seed), arguments.out, Console())


if __name__ == "__main__":
    main()
