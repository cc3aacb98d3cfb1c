"""`make demo`: start the support desk, hold three conversations over HTTP, show the stored messages, stop the desk."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table
from server import ROOT, ServerFailed, running

CONVERSATIONS: Mapping[str, Sequence[str]] = {
    "a ticket, and a follow-up": (
        "Hi! Could you tell me where we are with BUG-771?",
        "ok thanks. and any update on case 48213?",
        "Sorry, I meant INC-9999. What about that ticket?",
    ),
    "a problem, and it won't go away": (
        "good morning",
        "My printer has a paper jam again, the paper is stuck in tray 2.",
        "that did not help, what else can I try?",
    ),
    "both at once": (
        "the wifi in meeting room 4 keeps dropping",
        "I opened a ticket for it last week, INC-3391. Is it fixed yet?",
        "Thanks! Also, I forgot my password.",
    ),
}

console = Console(highlight=False)


def text(name: str, value: str) -> dict[str, Any]:
    """Build a V2 text tensor with one element."""
    return {"name": name, "shape": [1], "datatype": "BYTES", "data": [value]}


def infer(url: str, inputs: list[dict[str, Any]], **extra: Any) -> dict[str, list[Any]]:
    """Send a V2 request and return the data of each output tensor."""
    headers = extra.pop("headers", None)
    answer = httpx2.post(url, json={"inputs": inputs, **extra}, headers=headers, timeout=60)
    if not answer.is_success:
        raise ServerFailed(f"{url} answered {answer.status_code}: {answer.text}")
    return {tensor["name"]: tensor["data"] for tensor in answer.json()["outputs"]}


def show_turn(question: str, outputs: Mapping[str, list[Any]]) -> None:
    """Print a turn: the question, the answer, and how the pipeline produced it."""
    rows = {row["step"]: row for row in map(json.loads, outputs["trace"])}
    decision = rows["route-request"]["left"][0]
    answer = next(row for name, row in rows.items() if name.startswith("answer-") and row["left"])
    prompt = answer["parameters"]
    steps = ", ".join(f"{name} {row['ms']:.0f}" for name, row in rows.items() if row["left"])
    turn = Table.grid(padding=(0, 2))
    turn.add_column(style="bold", width=8)
    turn.add_column(overflow="fold")
    turn.add_row("you", question)
    turn.add_row("desk", f"[green]{outputs['content'][0]}[/]")
    turn.add_row("route", f"[cyan]{decision['label'][0]}[/], score {decision['score'][0]:.3f}")
    turn.add_row("prompt", f"{prompt['prompt']}, version {prompt['prompt_version']} ({prompt['prompt_hash']})")
    turn.add_row("ms", f"[dim]{steps}[/]")
    console.print(turn)
    console.print()


def show_stored(memory_id: str, records: Sequence[str]) -> None:
    """Print the stored conversation, with the prompt that produced each reply."""
    stored = Table(title=f"stored: {memory_id}", title_justify="left", show_edge=False, expand=True)
    stored.add_column("role", width=9)
    stored.add_column("content", ratio=3, overflow="fold")
    stored.add_column("prompt", ratio=1, overflow="fold")
    for record in map(json.loads, records):
        content = " ".join(part["value"] for part in record["content"])
        source = record.get("provenance", {})
        prompt = f"{source['prompt']} v{source['prompt_version']}" if "prompt" in source else ""
        stored.add_row(record["role"], content, prompt)
    console.print(stored)
    console.print()


def converse(url: str) -> None:
    """Hold all conversations, then show the stored messages."""
    for title, questions in CONVERSATIONS.items():
        console.rule(f"[bold]{title}", align="left")
        for question in questions:
            message = [text("memory_id", title), text("role", "user"), text("content", question), text("type", "text")]
            trace = {"x-pipeline-trace": "1"}
            show_turn(question, infer(f"{url}/v2/pipelines/support-chat/infer", message, headers=trace))
    console.rule("[bold]read back from the memory", align="left")
    for title in CONVERSATIONS:
        export = infer(
            f"{url}/v2/models/remember-user/infer", [text("memory_id", title)], parameters={"operation": "export"}
        )
        show_stored(title, export["messages"])


def main() -> int:
    """Run the demo. Returns 0 if every request was answered."""
    data = Path(tempfile.mkdtemp(prefix="support-desk-"))
    log = data / "server.log"
    console.print(f"Starting the support desk; its log is {log}")
    try:
        with running(ROOT / "models", data, log) as url:
            console.print(f"It answers at {url}\n")
            converse(url)
    except ServerFailed as error:
        console.print(f"[red]{error}[/]")
        return 1
    console.print("The server has stopped. `make serve` leaves it running; `make help` lists the rest.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
