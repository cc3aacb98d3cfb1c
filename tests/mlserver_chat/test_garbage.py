"""The garbage collector's threshold changes only where the operator asks for it."""

import gc
from collections.abc import Iterator

import pytest
from mlserver import ModelSettings

from mlserver_chat import SettingsError
from mlserver_chat.runtime import GC_VARIABLE
from mlserver_memory import ConversationalMemory


@pytest.fixture(autouse=True)
def _restored_threshold() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def construct() -> None:
    extra = {"database": "filesys"}
    ConversationalMemory(ModelSettings(name="m", implementation=ConversationalMemory, parameters={"extra": extra}))


def test_loading_a_model_keeps_the_threshold() -> None:
    gc.set_threshold(700, 10, 10)
    construct()
    assert gc.get_threshold() == (700, 10, 10)


def test_the_environment_sets_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.set_threshold(700, 10, 10)
    monkeypatch.setenv(GC_VARIABLE, "10000")
    construct()
    assert gc.get_threshold() == (10_000, 10, 10)


@pytest.mark.parametrize("value", ["often", "-1", "1.5", ""])
def test_a_wrong_threshold_fails_the_load(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(GC_VARIABLE, value)
    with pytest.raises(SettingsError, match=GC_VARIABLE):
        construct()
