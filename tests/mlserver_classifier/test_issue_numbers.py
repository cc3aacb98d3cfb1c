"""The demo's patterns for issue numbers, on messages that people write."""

import json

import pytest

from mlserver_classifier.fields import FieldFinder
from mlserver_classifier.settings import FieldSettings
from support import ROOT

SETTINGS = json.loads((ROOT / "models/route-request/model-settings.json").read_text(encoding="utf-8"))
FIELD = FieldSettings.model_validate(SETTINGS["parameters"]["extra"]["fields"]["issue_number"])

FOUND = {
    "48213": "48213",
    "48213?": "48213",
    "what about 48213, any news": "48213",
    "status of 48213.": "48213",
    "(48213)": "48213",
    "48213 - still open?": "48213",
    "is it 120934": "120934",
    "and 5567!": "5567",
    "#48213": "#48213",
    "what happened to #18": "#18",
    "update on #4431 would be nice...": "#4431",
    "BUG-771": "BUG-771",
    "any news on INC-3391?": "INC-3391",
    "is inc-3391 done": "inc-3391",
    "INC-4 resolved?": "INC-4",
    "where is Net-609's fix": "Net-609",
    "INC-3391- any progress": "INC-3391",
    "please tell me where INC0047719 stands": "INC0047719",
    "case 5567": "5567",
    "Case: 5567": "5567",
    "ticket no. 5567": "5567",
    "ticket number 120934": "120934",
    "issue # 48213": "48213",
    "issue #83": "#83",
    "my ticket is 20777, is it done": "20777",
    "the ticket nr 77": "77",
    "tikcet 5567 pls": "5567",
    "case 2024": "2024",
    "error 404 again, see BUG-771": "BUG-771",
    "since 10:30 I wait for 48213": "48213",
    "my iPhone 15 is in case 5567": "5567",
    "printer #3 is broken, what about ticket 48213": "48213",
    "I have 3 monitors and ticket 83126": "83126",
    "it was opened on 2024-05-12: INC-31": "INC-31",
    "opened in 2023, number 7730": "7730",
    "paid 1200 EUR, what about 6642?": "6642",
    "call me at 0171 1234567 about HW-334": "HW-334",
    "über #77 bitte": "#77",
    "48213\n\nThanks": "48213",
}

NOT_FOUND = [
    "",
    "what is the status of my ticket?",
    "error 404",
    "error 4040",
    "error code 1603",
    "error #404",
    "0x80070005",
    "3 monitors",
    "iPhone 15",
    "Windows 11 and Office 2021",
    "Windows 2019 server",
    "since 10:30",
    "at 10:30:45",
    "on 2024-05-12",
    "on 12.05.2024",
    "on 12/05/2024",
    "in 2025",
    "call +49 30 123456",
    "call 0171 1234567",
    "call 555-1234",
    "it cost $1200",
    "it cost 1,200.00",
    "it cost 1200€",
    "1200 dollars",
    "1920x1080",
    "1080p",
    "192.168.10.1",
    "http://host:8080/",
    "port 8080",
    "room 4012",
    "10.0.19045",
    "5000 MB free",
    "2500 files",
    "case 24 hours ago",
    "the ticket is 10 days old",
    "UTF-8 and SHA-256 and COVID-19",
    "CVE-2024-12345",
    "a1b2c3d4",
    "48213abc",
    "1234567890",
    "&#39;",
]


@pytest.mark.parametrize(("text", "value"), FOUND.items())
async def test_an_issue_number_is_found(text: str, value: str) -> None:
    assert await FieldFinder({"n": FIELD}).find([text], "status") == {"n": value}


@pytest.mark.parametrize("text", NOT_FOUND)
async def test_other_numbers_are_not_found(text: str) -> None:
    assert await FieldFinder({"n": FIELD}).find([text], "status") == {"n": ""}


async def test_text_built_to_backtrack_is_searched_quickly() -> None:
    hostile = ["ticket" + " no" * 30_000, "#" * 100_000, "1 " * 50_000, "inc-" * 25_000, "ticket" + " .:#-" * 20_000]
    for text in hostile:
        assert await FieldFinder({"n": FIELD}).find([text, "#7"], "status") == {"n": "#7"}, text[:20]
