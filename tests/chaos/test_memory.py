"""A short chaos run, and that its checker finds faults; `python tests/memory_chaos.py` is the long one."""

import asyncio
from pathlib import Path

import httpx2
import pytest

from memory_chaos import FAILOVER, Run, chaos


@pytest.mark.parametrize("store", ["psycopg", FAILOVER])
def test_no_answered_append_is_lost_doubled_or_out_of_order(store: str, tmp_path: Path) -> None:
    run = chaos(store, appends=400, conversations=8, folder=tmp_path)
    assert run.kills >= 1


def test_the_checker_finds_what_is_lost_doubled_out_of_order_or_malformed(tmp_path: Path) -> None:
    run, name = Run("filesys", appends=5, conversations=1, folder=tmp_path), "conversation 0"

    async def talk() -> None:
        async with httpx2.AsyncClient(timeout=10) as client:
            await run._talk(client, name)

    try:
        run.prepare()
        asyncio.run(talk())
        assert run.check() == 5
        answered = run.windows[name]
        turn, window = answered[2]
        faults = {
            "lost": [*answered, (5, [])],
            "doubled": answered[:-1],
            "out of order": [*answered[:3], answered[4], answered[3]],
            "a window with a hole": [*answered[:2], (turn, window[1:]), *answered[3:]],
        }
        for fault, answers in faults.items():
            run.windows[name] = answers
            with pytest.raises(AssertionError):
                run.check()
                pytest.fail(fault)
    finally:
        run.stop()
