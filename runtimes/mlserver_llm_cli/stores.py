"""Opens the store that a command's argument names."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
from mlserver import ModelSettings
from mlserver.settings import ModelParameters

from mlserver_chat import MemoryStore, SettingsError, load_settings
from mlserver_chat.files import read_json
from mlserver_memory import ConversationalMemory, InMemoryStore, MemorySettings, open_store
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.opening import place_of, schema_of

from .words import say

SETTINGS = "model-settings.json"


def find_store(store: str) -> tuple[MemoryStore, str]:
    """Return the store that an argument names, not yet connected, and the namespace of its settings.

    Raises:
        SettingsError: the argument names no store.
    """
    folder = Path(store)
    if store and folder.is_dir() and not (folder / SETTINGS).exists():
        return FileSysStore(folder.resolve()), ""
    settings = _settings(store)
    return open_store(settings), settings.config.namespace


def _settings(store: str) -> MemorySettings:
    """Return the settings of a model, or the settings that stand for a URL."""
    path = Path(store) / SETTINGS if Path(store).is_dir() else Path(store)
    if path.is_file():
        try:
            read_json(path)
            return load_settings(MemorySettings, ModelSettings.parse_file(str(path)))
        except ValueError as error:
            sentence = f"'{path}' is not a valid {SETTINGS}; write a SQLite file as sqlite:///{store}"
            raise SettingsError(sentence) from error
    if ":" not in store:
        raise SettingsError(
            f"there is no folder '{store}'; expected the folder of a memory model or file store, or a SQLAlchemy URL"
        )
    parameters = ModelParameters(extra={"database": "sql", "config": {"url": store}})
    return load_settings(
        MemorySettings, ModelSettings(name="store", implementation=ConversationalMemory, parameters=parameters)
    )


@asynccontextmanager
async def _opened(store: str, namespace: str | None, changes: bool) -> AsyncGenerator[MemoryStore]:
    """Open the store. A missing store is created if the command `changes` it, and counts as empty otherwise."""
    opened, configured = find_store(store)
    try:
        if changes:
            await opened.open()
        version, newest = await schema_of(opened)
        if 0 < version < newest:
            raise click.ClickException("the schema is older than this release; run 'mlserver-llm memory migrate' first")
        if not version:
            say(f"the store is empty: {place_of(opened)}", err=True)
        found = opened if version else InMemoryStore()
        yield found.scope(configured if namespace is None else namespace)
    finally:
        await opened.aclose()


def run(
    store: str, namespace: str | None, work: Callable[[MemoryStore], Coroutine[Any, Any, None]], changes: bool = False
) -> None:
    """Run `work` on the store that an argument names."""

    async def opened_run() -> None:
        async with _opened(store, namespace, changes) as opened:
            await work(opened)

    asyncio.run(opened_run())
