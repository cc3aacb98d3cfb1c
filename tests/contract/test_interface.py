"""The interface that users rely on stays as the first release had it; additions are free."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interface import interface

FIRST = json.loads(Path(__file__).with_name("interface.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def current() -> dict[str, Any]:
    return interface()


def _fields() -> Iterator[tuple[str, str, str]]:
    for runtime, classes in FIRST["settings"].items():
        for settings_class, fields in classes.items():
            for field in fields:
                yield runtime, settings_class, field


@pytest.mark.parametrize(("runtime", "settings_class", "field"), list(_fields()))
def test_a_setting_keeps_its_name_type_and_default(
    current: dict[str, Any], runtime: str, settings_class: str, field: str
) -> None:
    before = FIRST["settings"][runtime][settings_class][field]
    assert current["settings"][runtime][settings_class][field] == before


@pytest.mark.parametrize("error", FIRST["statuses"])
def test_an_error_keeps_its_status(current: dict[str, Any], error: str) -> None:
    assert current["statuses"][error] == FIRST["statuses"][error]


@pytest.mark.parametrize("runtime", FIRST["tensors"])
def test_a_runtime_keeps_its_tensors(current: dict[str, Any], runtime: str) -> None:
    assert current["tensors"][runtime] == FIRST["tensors"][runtime]
