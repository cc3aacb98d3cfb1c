"""A short chaos run; `python tests/memory_chaos.py` is the long one."""

from pathlib import Path

import pytest

from memory_chaos import chaos


@pytest.mark.parametrize("store", ["psycopg"])
def test_no_answered_append_is_lost_doubled_or_out_of_order(store: str, tmp_path: Path) -> None:
    run = chaos(store, appends=400, conversations=8, folder=tmp_path)
    assert run.kills >= 1
