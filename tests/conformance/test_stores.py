"""Every store keeps every promise of the seam."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from databases import SQL_KINDS, sql_url
from mlserver_chat import MemoryStore
from mlserver_memory import InMemoryStore
from mlserver_memory.conformance import SPECS, Spec
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.sql import SqlStore


@pytest.fixture(scope="module", params=["memory", "filesys", *SQL_KINDS])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Kind of store, and where it is: a folder or a URL."""
    folder = tmp_path_factory.mktemp("store")
    kind = request.param
    return kind, sql_url(kind, f"conformance_{kind}", folder) if kind in SQL_KINDS else str(folder)


@pytest.fixture
async def store(place: tuple[str, str]) -> AsyncIterator[MemoryStore]:
    """A new store over the same place for each spec."""
    kind, where = place
    if kind == "memory":
        store: MemoryStore = InMemoryStore()
    elif kind == "filesys":
        store = FileSysStore(Path(where))
    else:
        store = SqlStore(where)
    yield store
    await store.aclose()


@pytest.mark.parametrize("spec", SPECS, ids=str)
async def test_the_store_keeps_its_promise(spec: Spec, store: MemoryStore) -> None:
    await spec.run(store)
