"""`mlserver-llm memory`: what a memory store holds, over any store."""

import asyncio
import dataclasses
import json
import re
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO, cast

import click
from mlserver import ModelSettings
from mlserver.settings import ModelParameters
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from mlserver_chat import AppendKey, ChatError, MemoryStore, Message, StoredMessage, load_settings
from mlserver_chat.identity import check_memory_id, hashed
from mlserver_chat.tensors import dumps, json_object
from mlserver_memory import ConversationalMemory, InMemoryStore, MemorySettings, open_store
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.opening import schema_of
from mlserver_memory.operations import exported

_PAGE = 1000
"""Messages read at a time."""
_BATCH = 50
"""Messages imported at a time: a file store reads the messages of one append together."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_store_argument = click.argument("store")
_namespace_option = click.option("--namespace", help="Namespace to act in; default: the one of the settings.")
_dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@click.group()
def memory() -> None:
    """Look after conversations: list, show, export, import, delete, prune, migrate.

    STORE is the folder of a memory model (with its model-settings.json), the folder of a file store, or a SQLAlchemy
    URL; `env:NAME` and `file:/path` keep a URL's password off the command line.
    """


@asynccontextmanager
async def _opened(store: str, namespace: str | None, changes: bool) -> AsyncGenerator[MemoryStore]:
    """The store. One that nobody has made yet is made for what `changes` it; to all else it is an empty one."""
    opened, configured = _store(store)
    try:
        if changes:
            await opened.open()
        version, newest = await schema_of(opened)
        if 0 < version < newest:
            raise click.ClickException("the schema is older than this release: run 'mlserver-llm memory migrate' first")
        found = opened if version else InMemoryStore()
        yield found.scope(configured if namespace is None else namespace)
    finally:
        await opened.aclose()


def _store(store: str) -> tuple[MemoryStore, str]:
    """The store, not yet reached, and the namespace of its settings."""
    folder = Path(store)
    if folder.is_dir() and not (folder / "model-settings.json").exists():
        return FileSysStore(folder.resolve()), ""
    settings = _settings(store)
    return open_store(settings), settings.config.namespace


def _settings(store: str) -> MemorySettings:
    """The settings of a model, or those that a URL amounts to."""
    path = Path(store) / "model-settings.json" if Path(store).is_dir() else Path(store)
    if path.is_file():
        return load_settings(MemorySettings, ModelSettings.parse_file(str(path)))
    extra = {"database": "sql", "config": {"url": store}}
    parameters = ModelParameters(extra=extra)
    return load_settings(
        MemorySettings, ModelSettings(name="store", implementation=ConversationalMemory, parameters=parameters)
    )


def _run(
    store: str, namespace: str | None, work: Callable[[MemoryStore], Coroutine[Any, Any, None]], changes: bool = False
) -> None:
    async def run() -> None:
        async with _opened(store, namespace, changes) as opened:
            await work(opened)

    _until_done(run())


def _until_done(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except ChatError as error:
        raise click.ClickException(str(error)) from None


def _progress() -> Progress:
    """On standard error, so that what is printed can be piped on; only on a terminal."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


@memory.command("list")
@_store_argument
@_namespace_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(store: str, namespace: str | None, as_json: bool) -> None:
    """List conversations: id, messages, when the newest one came."""

    async def work(opened: MemoryStore) -> None:
        table = Table("memory_id", "messages", "updated")
        async for info in opened.conversations():
            if as_json:
                click.echo(dumps(dataclasses.asdict(info)))
            table.add_row(_safe(info.memory_id), str(info.messages), _moment(info.updated))
        if not as_json:
            Console().print(table)

    _run(store, namespace, work)


@memory.command()
@_store_argument
@click.argument("memory_id")
@_namespace_option
def show(store: str, memory_id: str, namespace: str | None) -> None:
    """Show a conversation, with the prompt and the model that produced each reply."""

    async def work(opened: MemoryStore) -> None:
        console = Console()
        async for message in _messages(opened, memory_id):
            produced = " ".join(f"{name}={value}" for name, value in message.provenance.items())
            console.print(
                f"[dim]{message.sequence} {_moment(message.created)}[/] [bold]{_safe(message.role)}[/] "
                f"{_safe(_shown(message.message))} [dim]{_safe(produced)}[/]",
                highlight=False,
            )

    _run(store, namespace, work)


def _safe(text: str) -> str:
    """Text of a user on a terminal: no markup, no control sequences."""
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text))


def _shown(message: Message) -> str:
    other = [f"<{part.type}>" for part in message.parts if part.type != "text"]
    return " ".join(filter(None, [message.text, *other, *message.tool_calls]))


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


@memory.command()
@_store_argument
@click.argument("memory_ids", nargs=-1)
@_namespace_option
@click.option("-o", "--output", type=click.File("w", encoding="utf-8"), default="-", help="File; default: stdout.")
def export(store: str, memory_ids: tuple[str, ...], namespace: str | None, output: TextIO) -> None:
    """Write conversations, by default all, as JSON lines: one message a line."""

    async def work(opened: MemoryStore) -> None:
        ids = list(memory_ids) or [info.memory_id async for info in opened.conversations()]
        with _progress() as progress:
            for memory_id in progress.track(ids, description="export"):
                async for message in _messages(opened, memory_id):
                    row = {"memory_id": memory_id, **json.loads(exported(message))}
                    output.write(dumps(row) + "\n")

    _run(store, namespace, work)


async def _messages(opened: MemoryStore, memory_id: str) -> AsyncGenerator[StoredMessage]:
    after = 0
    while page := await opened.read(check_memory_id(memory_id), after, _PAGE):
        for message in page:
            yield message
        after = page[-1].sequence


@dataclass(frozen=True)
class _Row:
    """A line of an export."""

    memory_id: str
    message: Message
    provenance: dict[str, str]
    created: float | None


@memory.command("import")
@_store_argument
@click.argument("source", type=click.File(encoding="utf-8"))
@_namespace_option
@_dry_run_option
def import_(store: str, source: TextIO, namespace: str | None, dry_run: bool) -> None:
    """Read what `export` wrote.

    A conversation that is there already is continued when it begins like the one in the file, so that an import that
    was interrupted can be run again; any other is left as it is, and named. Messages keep the time of the export.
    """

    async def work(opened: MemoryStore) -> None:
        rows = [_row(line, number) for number, line in enumerate(source, 1) if line.strip()]
        conversations: dict[str, list[_Row]] = {}
        for row in rows:
            conversations.setdefault(row.memory_id, []).append(row)
        imported, refused = 0, list[str]()
        with _progress() as progress:
            task = progress.add_task("import", total=len(rows))
            for memory_id, wanted in conversations.items():
                present = [message.message async for message in _messages(opened, memory_id)]
                if present != [row.message for row in wanted[: len(present)]]:
                    refused.append(memory_id)
                    continue
                progress.advance(task, len(present))
                missing = wanted[len(present) :]
                imported += len(missing)
                for batch in _batches(missing):
                    if not dry_run:
                        await _append(opened, memory_id, batch)
                    progress.advance(task, len(batch))
        click.echo(f"{'would import' if dry_run else 'imported'} {imported} messages")
        if refused:
            raise click.ClickException(f"other messages are there already, nothing was changed: {', '.join(refused)}")

    _run(store, namespace, work, changes=not dry_run)


def _row(line: str, number: int) -> _Row:
    where = f"line {number}"
    record = json_object(line, where)
    memory_id, provenance, created = record.get("memory_id"), record.get("provenance", {}), record.get("created")
    if not isinstance(memory_id, str) or not isinstance(provenance, dict):
        raise click.ClickException(f"{where} needs a text 'memory_id', and 'provenance' to be an object")
    if isinstance(created, bool) or not isinstance(created, int | float | None):
        raise click.ClickException(f"{where} has a 'created' that is no number; expected seconds since the epoch")
    message = Message.from_history(dumps(record), where)
    return _Row(check_memory_id(memory_id), message, cast(dict[str, str], provenance), created)


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Neighbours that can be appended together: of the same provenance and time, as those of one append are."""
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
            click.echo(f"{'would delete' if dry_run else 'deleted'} {memory_id}: {count} messages")

    _run(store, namespace, work, changes=not dry_run)


class _Duration(click.ParamType[float]):
    """`90s`, `15m`, `12h`, `30d`, or seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None:
            self.fail(f"'{value}' is not a duration such as 90s, 15m, 12h or 30d", param, ctx)
        return float(match[1]) * _SECONDS[match[2] or "s"]


@memory.command()
@_store_argument
@_namespace_option
@_dry_run_option
@click.option("--older-than", type=_Duration(), help="Remove messages older than this: 90s, 15m, 12h, 30d.")
@click.option("--max-messages", type=click.IntRange(min=0), help="Messages to keep of each conversation.")
@click.option("--all-namespaces", is_flag=True, help="Act in every namespace.")
def prune(
    store: str,
    namespace: str | None,
    dry_run: bool,
    older_than: float | None,
    max_messages: int | None,
    all_namespaces: bool,
) -> None:
    """Remove what is too old or too much; the newest system message of a conversation stays while others do."""
    if older_than is None and max_messages is None:
        raise click.UsageError("give --older-than or --max-messages")
    moment = None if older_than is None else time.time() - older_than

    async def work(opened: MemoryStore) -> None:
        scopes = [opened]
        if all_namespaces:
            scopes = [opened.scope(name) async for name in opened.namespaces()]
        removed = 0
        with _progress() as progress:
            for scope in scopes:
                ids = [info.memory_id async for info in scope.conversations()]
                for memory_id in _tracked(progress, ids, "prune"):
                    removed += await scope.prune(moment, max_messages, memory_id, dry_run)
        click.echo(f"{'would remove' if dry_run else 'removed'} {removed} messages")

    _run(store, namespace, work, changes=not dry_run)


def _tracked(progress: Progress, ids: Sequence[str], description: str) -> Iterable[str]:
    return progress.track(ids, total=len(ids), description=description)


@memory.command()
@_store_argument
@_dry_run_option
def migrate(store: str, dry_run: bool) -> None:
    """Create or upgrade the store's schema; the server does the same at its first connection."""

    async def work() -> None:
        opened, _ = _store(store)
        try:
            version, newest = await schema_of(opened)
            if version < newest and dry_run:
                click.echo(f"would bring the schema from version {version} to {newest}; 0 is none")
                return
            if not dry_run:
                await opened.open()
            stats = await opened.stats()
        finally:
            await opened.aclose()
        click.echo(f"the schema is up to date; {stats.conversations} conversations, {stats.messages} messages")

    _until_done(work())
