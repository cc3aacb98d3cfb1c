"""Measures a model on the held-out conversations and writes the numbers to `report.json` beside it.

    python -m training.support_tiny.evaluate --model models/support-tiny

While working on the phrases, measure on `development.jsonl` instead. The held-out set is for the final result.

    python -m training.support_tiny.evaluate --items training/support_tiny/development.jsonl
"""

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from training.support_tiny.phrases import HERE
from training.support_tiny.prompts import ROUTES, Message, classification_messages, status_messages, support_messages
from transformers import AutoModelForCausalLM, AutoTokenizer

HELD_OUT = HERE / "heldout.jsonl"
BATCH = 16
MAX_NEW_TOKENS = 96
Item = dict[str, Any]


@dataclass
class Report:
    """Counts of right answers. `topics` maps each topic to [right, asked]."""

    items: str
    routes: int = 0
    routes_right: int = 0
    status_replies: int = 0
    status_right: int = 0
    support_replies: int = 0
    support_right: int = 0
    routes_right_by_task: dict[str, list[int]] = field(default_factory=dict)
    topics: dict[str, list[int]] = field(default_factory=dict)


class Model:
    """A chat model that scores choices and writes greedy replies."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.padding_side = "left"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def _prompt(self, messages: list[Message]) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    @torch.inference_mode()
    def log_probability(self, messages: list[Message], reply: str) -> float:
        """Return the log-probability of the reply after the messages."""
        prompt = self.tokenizer(self._prompt(messages), add_special_tokens=False)["input_ids"]
        answer = self.tokenizer(reply, add_special_tokens=False)["input_ids"]
        logits = self.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        return float(logits.log_softmax(-1)[range(len(answer)), answer].sum())

    def choose(self, messages: list[Message]) -> str:
        """Return the likelier route."""
        return max((route.name for route in ROUTES), key=lambda name: self.log_probability(messages, name))

    @torch.inference_mode()
    def replies(self, chats: list[list[Message]]) -> list[str]:
        """Return greedy replies to several chats."""
        prompts = [self._prompt(messages) for messages in chats]
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        return self.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def abouts() -> dict[str, str]:
    """Return the phrase of each topic that its replies contain."""
    topics = json.loads((HERE / "topics.json").read_text(encoding="utf-8"))
    return {topic["id"]: topic["about"].lower() for topic in topics}


def status_right(item: Item, reply: str) -> bool:
    """Return whether the reply repeats number and status, or asks for a missing number."""
    if not item["issue_number"]:
        return not re.search(r"\d", reply) and "number" in reply.lower()
    return item["issue_number"] in reply and item["issue_status"] in reply


def support_right(item: Item, reply: str, phrases: dict[str, str]) -> bool:
    """Return whether the reply is about the item's topic and no other."""
    reply = reply.lower()
    return [topic for topic, phrase in phrases.items() if phrase in reply] == [item["topic"]]


def _replies(model: Model, items: list[Item], chat: Callable[[Item], list[Message]], console: Console) -> list[str]:
    """Return greedy replies in the order of the items. Chats of similar length are generated together."""
    order = sorted(range(len(items)), key=lambda i: sum(len(turn["content"]) for turn in items[i]["messages"]))
    replies = [""] * len(items)
    for start in track(range(0, len(order), BATCH), "replies", console=console):
        chosen = order[start : start + BATCH]
        for i, reply in zip(chosen, model.replies([chat(items[i]) for i in chosen]), strict=True):
            replies[i] = reply
    return replies


def _status_chat(item: Item) -> list[Message]:
    return status_messages(item["messages"], item["issue_number"], item["issue_status"])


def _support_chat(item: Item) -> list[Message]:
    return support_messages(item["messages"])


def evaluate(model: Model, items: list[Item], name: str, console: Console) -> tuple[Report, list[tuple[Item, str]]]:
    """Evaluate the model. Returns the report, and pairs of item and wrong answer for development sets."""
    report, wrong = Report(name), list[tuple[Item, str]]()
    by_task: dict[str, Counter[bool]] = defaultdict(Counter)
    for item in track(items, "routes", console=console):
        route = model.choose(classification_messages(item["messages"]))
        by_task[item["task"]][route == item["route"]] += 1
        if route != item["route"]:
            wrong.append((item, route))
    report.routes = len(items)
    report.routes_right = sum(count[True] for count in by_task.values())
    report.routes_right_by_task = {task: [count[True], count.total()] for task, count in sorted(by_task.items())}
    asked = [item for item in items if item["task"] == "status"]
    for item, reply in zip(asked, _replies(model, asked, _status_chat, console), strict=True):
        right = status_right(item, reply)
        report.status_right += right
        if not right:
            wrong.append((item, reply))
    report.status_replies = len(asked)
    asked, phrases = [item for item in items if item["task"] == "support"], abouts()
    for item, reply in zip(asked, _replies(model, asked, _support_chat, console), strict=True):
        right = support_right(item, reply, phrases)
        report.support_right += right
        counts = report.topics.setdefault(item["topic"], [0, 0])
        report.topics[item["topic"]] = [counts[0] + right, counts[1] + 1]
        if not right:
            wrong.append((item, reply))
    report.support_replies = len(asked)
    return report, wrong


def _share(right: int, total: int) -> str:
    return f"{right} of {total} ({100 * right / max(1, total):.1f} %)"


def rows(report: Report) -> list[tuple[str, str, str]]:
    """Return the rows of the table: measurement, result and target."""
    return [
        ("route of the last message", _share(report.routes_right, report.routes), "97 %"),
        ("status reply repeats number and status", _share(report.status_right, report.status_replies), "97 %"),
        ("support reply is about the topic asked", _share(report.support_right, report.support_replies), "90 %"),
    ]


def show(report: Report, console: Console) -> None:
    """Print the numbers as tables."""
    table = Table("held-out conversations", "right", "target", title=report.items)
    for row in rows(report):
        table.add_row(*row)
    console.print(table)
    tasks = [f"{task} {_share(*counts)}" for task, counts in report.routes_right_by_task.items()]
    console.print("routes by task: " + ", ".join(tasks))
    weak = [f"{topic} {right}/{total}" for topic, (right, total) in sorted(report.topics.items()) if right < total]
    console.print("topics with wrong replies: " + (", ".join(weak) or "none"))


def write_section(folder: Path, name: str, section: dict[str, Any]) -> None:
    """Write one section of the model's `report.json`, which has "training" and "held_out"."""
    path = folder / "report.json"
    sections = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(sections | {name: section}, indent=1) + "\n", encoding="utf-8")


def read_items(path: Path) -> list[Item]:
    """Read conversations from a file with one JSON object per line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/support-tiny"))
    parser.add_argument("--items", type=Path, default=HELD_OUT)
    arguments = parser.parse_args()
    console = Console()
    report, wrong = evaluate(Model(arguments.model), read_items(arguments.items), arguments.items.name, console)
    show(report, console)
    if arguments.items == HELD_OUT:
        write_section(arguments.model, "held_out", asdict(report))
        return
    for item, answer in wrong:
        console.print(f"{item['messages'][-1]['content']} → {answer}", markup=False)


if __name__ == "__main__":
    main()
