"""How often a process that has a model of the suite looks for garbage."""

import gc
from collections.abc import Iterator

import pytest
from mlserver import ModelSettings

from mlserver_memory import ConversationalMemory


@pytest.fixture
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("chosen", "then"),
    [((700, 10, 10), (10_000, 10, 10)), ((0, 10, 10), (0, 10, 10)), ((50_000, 5, 2), (50_000, 5, 2))],
)
@pytest.mark.usefixtures("threshold")
def test_less_often_unless_somebody_chose(chosen: tuple[int, int, int], then: tuple[int, int, int]) -> None:
    gc.set_threshold(*chosen)
    ConversationalMemory(
        ModelSettings(name="m", implementation=ConversationalMemory, parameters={"extra": {"database": "filesys"}})
    )
    assert gc.get_threshold() == then
