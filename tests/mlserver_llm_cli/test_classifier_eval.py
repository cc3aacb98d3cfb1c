"""`mlserver-llm classifier eval` against a served classifier."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlserver_llm_cli.main import main
from support import Server

EXTRA = {"routes": [{"name": "status"}, {"name": "support"}], "scorer": "mlserver_chat.testing.FakeScorer"}


@pytest.fixture(scope="module")
def url(mlserver: Callable[..., Server]) -> str:
    settings = {"implementation": "mlserver_classifier.Classifier", "parameters": {"extra": EXTRA}}
    return f"{mlserver({'route-request': settings}).url}/v2/models/route-request/infer"


def run(url: str, tmp_path: Path, cases: list[tuple[str, str]], *options: str) -> tuple[int, str]:
    lines = [json.dumps({"messages": [{"role": "user", "content": text}], "route": route}) for text, route in cases]
    (tmp_path / "cases.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    result = CliRunner().invoke(main, ["classifier", "eval", url, str(tmp_path / "cases.jsonl"), *options])
    return result.exit_code, result.output


CASES = [("status", "status"), ("my status", "status"), ("support", "support"), ("[support] me", "status")]


def test_eval_prints_accuracy_routes_thresholds_and_wrong_cases(url: str, tmp_path: Path) -> None:
    code, output = run(url, tmp_path, CASES)
    rows = [line.split() for line in output.splitlines()]
    assert ["status", "3", "2", "100.0%", "66.7%"] in rows
    assert ["support", "1", "2", "50.0%", "100.0%"] in rows
    assert ["0.9", "0", "75.0%"] in rows and ["0.95", "4", "–"] in rows
    assert "status → support 0.90  [support] me" in output
    assert "75.0% of 4 right" in output and code == 0


def test_a_build_can_require_an_accuracy(url: str, tmp_path: Path) -> None:
    assert run(url, tmp_path, CASES, "--at-least", "0.8", "--no-wrong")[0] == 1
    assert run(url, tmp_path, CASES[:3], "--at-least", "1")[0] == 0


def test_faults_are_one_sentence(url: str, tmp_path: Path) -> None:
    assert "contains no case" in run(url, tmp_path, [])[1]
    assert "not found" in run(url.replace("route-request", "absent"), tmp_path, CASES)[1].lower()
    code, output = run("http://127.0.0.1:9/v2/models/x/infer", tmp_path, CASES)
    assert code == 1 and "can't be reached" in output and "Traceback" not in output
