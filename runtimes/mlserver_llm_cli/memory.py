"""`mlserver-llm memory`: manages the conversations of any memory store."""

import asyncio
import dataclasses
import json
import re
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TextIO, cast

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mlserver_chat import AppendKey, MemoryStore, Message, StoredMessage
from mlserver_chat.requests.identity import check_memory_id, hashed
from mlserver_chat.tensors import dumps, json_object
from mlserver_memory.opening import schema_of
from mlserver_memory.operations import exported

from .stores import find_store, run
from .words import Group, as_json, counted, markup, say

_PAGE = 1000
"""Messages to read at once."""
_BATCH = 50
"""Messages to import in one append. A file store reads all messages of one append together."""
_LONGEST_LINE = 2**24
"""Longest line of a file to import, in characters."""
_YEAR_10000 = 253_402_300_800
"""In seconds since the epoch."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_store_argument = click.argument("store")
_namespace_option = click.option("--namespace", help="Namespace; default: the one in the settings.")
_everywhere_option = click.option("--all-namespaces", is_flag=True, help="Act on all namespaces.")
_dry_run_option = click.option("--dry-run", is_flag=True, help="Print the changes without making them.")


@click.group(cls=Group)
def memory() -> None:
    """List, show, export, import, delete and prune conversations.

    STORE is the folder of a memory model (with its model-settings.json), the folder of a file store, or a SQLAlchemy
    URL. `env:NAME` and `file:/path` keep the URL's password off the command line.
    """


def _progress() -> Progress:
    """Return a progress bar on standard error, so that the output can be piped. It shows on a terminal only."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


async def _scopes(
    opened: MemoryStore, namespace: str | None, all_namespaces: bool
) -> AsyncGenerator[tuple[dict[str, str], MemoryStore]]:
    """Yield the stores to act on. With `all_namespaces`, each comes with its name as a JSON object."""
    if not all_namespaces:
        yield {}, opened
        return
    if namespace is not None:
        raise click.UsageError("give --namespace or --all-namespaces, not both")
    async for name in opened.namespaces():
        yield {"namespace": name}, opened.scope(name)


@memory.command("list")
@_store_argument
@_namespace_option
@_everywhere_option
@click.option("--json", "json_lines", is_flag=True, help="Print one JSON object per line.")
def list_(store: str, namespace: str | None, all_namespaces: bool, json_lines: bool) -> None:
    """List conversations with their number of messages and the time of the newest one."""

    async def work(opened: MemoryStore) -> None:
        table = Table(*(["namespace"] if all_namespaces else []), "memory_id", "messages", "updated")
        async for name, scope in _scopes(opened, namespace, all_namespaces):
            async for info in scope.conversations():
                if json_lines:
                    say(as_json({**name, **dataclasses.asdict(info)}))
                else:
                    named = [markup(each) for each in (*name.values(), info.memory_id)]
                    table.add_row(*named, str(info.messages), _moment(info.updated))
        if not json_lines:
            Console().print(table)

    run(store, namespace, work)


@memory.command()
@_store_argument
@click.argument("memory_id")
@_namespace_option
def show(store: str, memory_id: str, namespace: str | None) -> None:
    """Show a conversation, including the prompt and model behind each reply."""

    async def work(opened: MemoryStore) -> None:
        # Wrap lines on a terminal only, so that a search in piped output finds whole messages.
        console, found = Console(soft_wrap=not sys.stdout.isatty()), False
        async for message in _messages(opened, memory_id):
            found = True
            produced = " ".join(f"{name}={value}" for name, value in message.provenance.items())
            console.print(
                f"[dim]{message.sequence} {_moment(message.created)}[/] [bold]{markup(message.role)}[/] "
                f"{markup(_shown(message.message))} [dim]{markup(produced)}[/]",
                highlight=False,
            )
        if not found:
            raise click.ClickException(f"there is no conversation '{memory_id}'")

    run(store, namespace, work)


def _shown(message: Message) -> str:
    other = [f"<{part.type}>" for part in message.parts if part.type != "text"]
    return " ".join(filter(None, [message.text, *other, *message.tool_calls]))


def _moment(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OSError, ValueError, OverflowError):
        return str(seconds)


@memory.command()
@_store_argument
@click.argument("memory_ids", nargs=-1)
@_namespace_option
@_everywhere_option
@click.option("-o", "--output", type=click.File("w", encoding="utf-8"), default="-", help="File; default: stdout.")
def export(
    store: str, memory_ids: tuple[str, ...], namespace: str | None, all_namespaces: bool, output: TextIO
) -> None:
    """Write conversations as JSON lines, one message per line. Default: all conversations of the namespace."""

    async def work(opened: MemoryStore) -> None:
        missing = set(memory_ids)
        async for name, scope in _scopes(opened, namespace, all_namespaces):
            ids = list(memory_ids) or [info.memory_id async for info in scope.conversations()]
            with _progress() as progress:
                for memory_id in _tracked(progress, ids, "export"):
                    async for message in _messages(scope, memory_id):
                        missing.discard(memory_id)
                        row = {**name, "memory_id": memory_id, **json.loads(exported(message))}
                        output.write(as_json(row) + "\n")
        output.flush()
        if missing:
            raise click.ClickException(f"there is no conversation '{sorted(missing)[0]}'")

    run(store, namespace, work)


async def _messages(opened: MemoryStore, memory_id: str) -> AsyncGenerator[StoredMessage]:
    after = 0
    while page := await opened.read(check_memory_id(memory_id), after, _PAGE):
        for message in page:
            yield message
        after = page[-1].sequence


@dataclass(frozen=True)
class _Row:
    """A line of an export."""

    namespace: str | None
    memory_id: str
    message: Message
    provenance: dict[str, str]
    created: float | None


@memory.command("import")
@_store_argument
@click.argument("source", type=click.File(encoding="utf-8-sig"))
@_namespace_option
@_dry_run_option
def import_(store: str, source: TextIO, namespace: str | None, dry_run: bool) -> None:
    """Read what `export` wrote.

    Continues a stored conversation whose messages match the beginning of the one in the file, so that an interrupted
    import can run again. Leaves any other stored conversation unchanged and names it. Messages keep their times, and
    their namespaces if the export contains them.
    """

    async def work(opened: MemoryStore) -> None:
        rows = list(_rows(source))
        conversations: dict[tuple[str | None, str], list[_Row]] = {}
        for row in rows:
            conversations.setdefault((row.namespace, row.memory_id), []).append(row)
        imported, refused = 0, list[str]()
        with _progress() as progress:
            task = progress.add_task("import", total=len(rows))
            for (name, memory_id), wanted in conversations.items():
                scope = opened if name is None else opened.scope(name)
                present = [message.message async for message in _messages(scope, memory_id)]
                if present != [row.message for row in wanted[: len(present)]]:
                    refused.append(memory_id)
                    continue
                progress.advance(task, len(present))
                missing = wanted[len(present) :]
                imported += len(missing)
                for batch in _batches(missing):
                    if not dry_run:
                        await _append(scope, memory_id, batch)
                    progress.advance(task, len(batch))
        say(f"{'would import' if dry_run else 'imported'} {counted(imported, 'message')}")
        if refused:
            raise click.ClickException(f"not imported, because other messages are stored there: {', '.join(refused)}")

    run(store, namespace, work, changes=not dry_run)


def _rows(source: TextIO) -> Iterator[_Row]:
    number = 0
    while line := source.readline(_LONGEST_LINE + 1):
        number += 1
        where = f"line {number}"
        if len(line) > _LONGEST_LINE:
            raise click.ClickException(f"{where} is longer than {_LONGEST_LINE} characters")
        if line.strip():
            yield _row(line, where)


def _row(line: str, where: str) -> _Row:
    record = json_object(line, where)
    memory_id, provenance, created = record.get("memory_id"), record.get("provenance", {}), record.get("created")
    if not isinstance(memory_id, str) or not isinstance(provenance, dict):
        raise click.ClickException(f"{where} needs a text 'memory_id'; 'provenance' must be an object")
    is_time = created is None or (isinstance(created, int | float) and 0 <= created < _YEAR_10000)
    if isinstance(created, bool) or not is_time:
        raise click.ClickException(f"{where}: 'created' is not a time; expected seconds since the epoch")
    namespace = record.pop("namespace", None)
    if not isinstance(namespace, str | None):
        raise click.ClickException(f"{where}: 'namespace' is not a text")
    message = Message.from_history(dumps(record), where)
    return _Row(namespace, check_memory_id(memory_id), message, cast(dict[str, str], provenance), created)


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Yield the neighbours that one append can store: those of the same provenance and time."""
    for _, group in groupby(enumerate(rows), key=lambda item: (item[0] // _BATCH, item[1].provenance, item[1].created)):
        yield [row for _, row in group]


async def _append(opened: MemoryStore, memory_id: str, batch: Sequence[_Row]) -> None:
    messages = [row.message for row in batch]
    content = hashed("\n".join(message.to_history() for message in messages))
    key = AppendKey(memory_id, uuid.uuid4().hex, "import", content)
    await opened.append(key, messages, 1, batch[0].provenance, batch[0].created)


@memory.command()
@_store_argument
@click.argument("memory_ids", nargs=-1, required=True)
@_namespace_option
@_dry_run_option
def delete(store: str, memory_ids: tuple[str, ...], namespace: str | None, dry_run: bool) -> None:
    """Delete conversations."""

    async def work(opened: MemoryStore) -> None:
        for memory_id in memory_ids:
            if dry_run:
                count = len([message async for message in _messages(opened, memory_id)])
            else:
                count = await opened.delete(check_memory_id(memory_id))
            say(f"{'would delete' if dry_run else 'deleted'} {memory_id}: {counted(count, 'message')}")

    run(store, namespace, work, changes=not dry_run)


class _Duration(click.ParamType[float]):
    """`90s`, `15m`, `12h` or `30d`. The unit is required, since a wrong guess would delete messages."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert to seconds."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value))
        if match is None:
            self.fail(f"'{value}' is not a duration such as 90s, 15m, 12h or 30d", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


@memory.command()
@_store_argument
@_namespace_option
@_dry_run_option
@click.option("--older-than", type=_Duration(), help="Remove older messages, e.g. 90s, 15m, 12h, 30d.")
@click.option("--max-messages", type=click.IntRange(min=0), help="Messages to keep in each conversation.")
@_everywhere_option
def prune(
    store: str,
    namespace: str | None,
    dry_run: bool,
    older_than: float | None,
    max_messages: int | None,
    all_namespaces: bool,
) -> None:
    """Remove old or excess messages. Keeps the newest system message of a conversation that keeps other messages."""
    if older_than is None and max_messages is None:
        raise click.UsageError("give --older-than or --max-messages")
    moment = None if older_than is None else time.time() - older_than

    async def work(opened: MemoryStore) -> None:
        removed = 0
        with _progress() as progress:
            async for _, scope in _scopes(opened, namespace, all_namespaces):
                ids = [info.memory_id async for info in scope.conversations()]
                for memory_id in _tracked(progress, ids, "prune"):
                    removed += await scope.prune(moment, max_messages, memory_id, dry_run)
        say(f"{'would remove' if dry_run else 'removed'} {counted(removed, 'message')}")

    run(store, namespace, work, changes=not dry_run)


def _tracked(progress: Progress, ids: Sequence[str], description: str) -> Iterable[str]:
    return progress.track(ids, total=len(ids), description=description)


@memory.command()
@_store_argument
@_dry_run_option
def migrate(store: str, dry_run: bool) -> None:
    """Create or upgrade the schema of a store. The server does the same at its first connection."""

    async def work() -> None:
        opened, _ = find_store(store)
        try:
            version, newest = await schema_of(opened)
            if version < newest and dry_run:
                say(f"would upgrade the schema from version {version} to {newest} (0: no schema)")
                return
            if not dry_run:
                await opened.open()
                if version < newest:
                    say(f"upgraded the schema from version {version} to {newest} (0: no schema)")
            stats = await opened.stats()
        finally:
            await opened.aclose()
        held = f"{counted(stats.conversations, 'conversation')}, {counted(stats.messages, 'message')}"
        say(f"the schema is up to date; {held}")

    asyncio.run(work())
