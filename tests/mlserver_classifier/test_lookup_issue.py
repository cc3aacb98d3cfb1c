"""The demo's plain model in a real MLServer."""

import json
from collections.abc import Callable

import pytest

from support import ROOT, Server, outputs, text

ISSUES = json.loads((ROOT / "models/lookup-issue/issues.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    models = tmp_path_factory.mktemp("repository")
    (models / "lookup-issue").symlink_to(ROOT / "models" / "lookup-issue")
    return mlserver(models)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("48213", ISSUES["48213"]),
        ("#48213", ISSUES["48213"]),
        ("case 5567", ISSUES["5567"]),
        ("INC-3391", ISSUES["INC-3391"]),
        ("inc-3391", ISSUES["INC-3391"]),
        ("4821", "not found in the tracker"),
        ("INC-48213", "not found in the tracker"),
        ("no number", "not found in the tracker"),
        ("", "no issue number given"),
        ("  ", "no issue number given"),
    ],
)
def test_the_status_of_an_issue(server: Server, number: str, status: str) -> None:
    answer = outputs(server.infer("lookup-issue", [text("issue_number", number)]))
    assert answer == {"issue_number": [number], "issue_status": [status]}


def test_several_numbers_are_answered_in_order(server: Server) -> None:
    response = server.infer("lookup-issue", [text("issue_number", "5567", "", "48213")])
    assert outputs(response)["issue_status"] == [ISSUES["5567"], "no issue number given", ISSUES["48213"]]
    assert [tensor["shape"] for tensor in response.json()["outputs"]] == [[3, 1], [3, 1]]


def test_a_missing_number_is_refused(server: Server) -> None:
    response = server.infer("lookup-issue", [text("history", "x")])
    assert response.status_code == 422
    assert response.json()["error"] == "tensor 'issue_number' is missing; expected BYTES [n]"


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (["A" * 60_000], "tensor 'issue_number' has an element of 60000 characters; expected at most 255"),
        (["1"] * 101, "tensor 'issue_number' has 101 elements; expected at most 100"),
    ],
)
def test_oversized_input_is_refused(server: Server, numbers: list[str], sentence: str) -> None:
    response = server.infer("lookup-issue", [text("issue_number", *numbers)])
    assert (response.status_code, response.json()["error"]) == (422, sentence)


def test_the_demo_has_about_25_issues_and_finds_each_key() -> None:
    assert len(ISSUES) == 25
    assert all(key == key.upper() and status for key, status in ISSUES.items())
