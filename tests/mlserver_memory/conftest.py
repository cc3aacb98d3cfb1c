from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters

from mlserver_memory import ConversationalMemory
from mlserver_memory.sql import SqlStore

Load = Callable[..., Awaitable[ConversationalMemory]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a database of SQLite's."""
    return tmp_path / "memory.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    """A store in it."""
    store = SqlStore(f"sqlite:///{path}")
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture(params=["filesys", "sql"])
async def load(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Load]:
    """Loads a model over each kind of store: `await load(window_size=3)` with keys of `config`."""
    monkeypatch.setenv("MLSERVER_LLM_DATA", str(tmp_path))
    models: list[ConversationalMemory] = []

    async def make(name: str = "memory", **config: Any) -> ConversationalMemory:
        where = {"url": "sqlite:///memory.db"} if request.param == "sql" else {"path": "files"}
        extra = {"database": request.param, "config": where | config}
        settings = ModelSettings(
            name=name, implementation=ConversationalMemory, parameters=ModelParameters(extra=extra)
        )
        model = ConversationalMemory(settings)
        await model.load()
        models.append(model)
        return model

    yield make
    for model in models:
        await model.unload()
