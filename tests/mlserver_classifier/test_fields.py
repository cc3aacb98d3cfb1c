"""Fields: values found by pattern in the user's messages, newest first."""

import asyncio
import logging
import time
from typing import Any

import pytest

from mlserver_classifier import fields
from mlserver_classifier.fields import FieldFinder
from mlserver_classifier.settings import FieldSettings

NUMBER = FieldSettings(pattern=[r"#(\d+)|[A-Z]+-\d+"], routes=["status"])


async def find(settings: FieldSettings, texts: list[str], route: str = "status") -> str:
    found = await FieldFinder({"n": settings}).find(texts, route)
    return found["n"]


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        (["is #1 done?"], "1"),
        (["is AB-2 done?"], "AB-2"),
        (["and that?", "is #1 done?", "is #2 done?"], "1"),
        (["no", "numbers"], ""),
        ([""], ""),
    ],
)
async def test_the_value_of_the_newest_message_is_found(texts: list[str], value: str) -> None:
    assert await find(NUMBER, texts) == value


async def test_a_field_is_empty_for_a_route_that_does_not_need_it() -> None:
    assert await find(NUMBER, ["is #1 done?"], route="support") == ""


async def test_patterns_are_tried_in_order_on_each_message() -> None:
    settings = FieldSettings(pattern=[r"[A-Z]+-\d+", r"\d+"])
    assert await find(settings, ["12 things about AB-3", "AB-4"]) == "AB-3"
    assert await find(settings, ["12 things", "AB-4"]) == "12"


async def test_a_long_message_is_searched_to_its_end() -> None:
    assert await find(NUMBER, ["x" * 1_000_000 + " #77"]) == "77"


async def test_a_pattern_that_backtracks_does_not_block_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fields, "BUDGET_SECONDS", 0.2)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    secret = "a" * 200 + "!"
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        found: Any = await find(FieldSettings(pattern=[r"(?:a|aa|a?a)+$"]), [secret] * 50)
    ticking.cancel()
    assert found == ""
    assert time.monotonic() - began < 2
    assert ticks > 3, "the event loop went on meanwhile"
    assert "the search for field 'n' exceeded its limit of 0.2 s" in caplog.text
    assert "aaaa" not in caplog.text


async def test_many_short_messages_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "BUDGET_SECONDS", 0.0)
    assert await find(NUMBER, ["no number"] * 1000 + ["#1"]) == ""
