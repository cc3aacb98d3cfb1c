import asyncio

import pytest

from mlserver_chat import InvalidInput
from mlserver_chat.requests.deadline import DEADLINE_HEADER, Deadline, current_deadline, deadline_scope


def test_a_request_without_the_header_has_no_deadline() -> None:
    deadline = Deadline.of_headers({})
    assert not deadline.passed
    assert deadline.headers() == {}


def test_the_header_holds_the_milliseconds_left() -> None:
    deadline = Deadline.of_headers({DEADLINE_HEADER: "2000"})
    assert 1.5 < deadline.left <= 2
    assert 1500 < int(deadline.headers()[DEADLINE_HEADER]) <= 2000


@pytest.mark.parametrize("value", ["", "-1", "1.5", "soon", "9" * 13, "٣"])
def test_a_header_that_is_no_integer_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match=DEADLINE_HEADER):
        Deadline.of_headers({DEADLINE_HEADER: value})


def test_a_deadline_of_zero_has_passed() -> None:
    assert Deadline.of_headers({DEADLINE_HEADER: "0"}).passed


def test_sooner_returns_the_earlier_deadline() -> None:
    assert Deadline.after(10).sooner(1).left <= 1
    assert Deadline.after(1).sooner(10).left <= 1
    assert Deadline().sooner(1).left <= 1


async def test_an_enforced_deadline_cancels_the_block() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline.after(0.01).enforced() as scope:
            await asyncio.sleep(5)
    assert scope.expired()


def test_a_scope_ends_with_its_block() -> None:
    with deadline_scope(Deadline.after(1)):
        assert current_deadline().left <= 1
    assert current_deadline().left > 1
