"""Fixtures of the pipeline's tests."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pipeline_lab import Lab, Model


@pytest.fixture
def lab(tmp_path: Path) -> Callable[..., Lab]:
    """`lab({"step": function, …}, spec, …)`."""

    def make(models: Mapping[str, Model], *specs: str, names: tuple[str, ...] = ("p",)) -> Lab:
        return Lab(tmp_path, models, *specs, names=names)

    return make
