import asyncio

import pytest

from mlserver_chat.errors import CallerLeft
from mlserver_chat.requests.caller import Caller, caller_scope, current_caller


async def test_work_for_a_waiting_caller_ends_with_its_result() -> None:
    assert await Caller().unless_left(asyncio.sleep(0, "done")) == "done"


async def test_a_leaving_caller_cancels_the_work() -> None:
    caller, cancelled = Caller(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    asyncio.get_running_loop().call_later(0.01, caller.leave)
    with pytest.raises(CallerLeft):
        await caller.unless_left(work())
    assert cancelled.is_set()
    assert caller.has_left


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Caller().unless_left(work())


async def test_tasks_started_in_a_scope_know_the_caller() -> None:
    async def seen() -> Caller | None:
        return current_caller()

    caller = Caller()
    with caller_scope(caller):
        task = asyncio.create_task(seen())
    assert await task is caller
    assert current_caller() is None
