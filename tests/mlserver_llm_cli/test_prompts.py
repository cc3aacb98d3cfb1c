"""`mlserver-llm prompts` shows prompts and renders their messages."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlserver_llm_cli.main import main

PROMPTS = [
    {"name": "p", "version": "1", "template": [{"role": "user", "content": "[{number}]"}]},
    {
        "name": "p",
        "version": "2",
        "template": [{"role": "placeholder", "content": "{history}"}, {"role": "user", "content": "About {number}."}],
        "legend": {"number": {"field": "issue_number", "description": "of the tracker"}},
        "invocation_config": {"temperature": 0},
    },
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "prompt.json"
    path.write_text(json.dumps(PROMPTS), encoding="utf-8")
    (tmp_path / "model" / "other.json").write_text("{}", encoding="utf-8")
    return path


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["prompts", *map(str, arguments)])
    return result.exit_code, result.output


def test_show_prints_the_prompts_of_a_folder_with_tensors_and_hash(path: Path) -> None:
    code, output = run("show", path.parent.parent, "--llm", "tiny")
    assert code == 0
    assert "[{number}]" in output, "text that looks like markup is shown as it is"
    assert [word in output for word in ("version 1", "version 2", "issue_number", "of the tracker")] == [True] * 4
    hashes = {line.split(" · ")[1] for line in output.splitlines() if "version" in line}
    assert len(hashes) == 2 and all(len(each) == 16 for each in hashes)


def test_render_fills_in_values_and_a_conversation(path: Path, tmp_path: Path) -> None:
    conversation = tmp_path / "conversation.json"
    conversation.write_text('[{"role": "user", "content": "hi {number}"}]', encoding="utf-8")
    code, output = run("render", path, "--set", "issue_number=4=2", "--messages", conversation)
    assert code == 0
    assert json.loads(output) == [
        {"role": "user", "content": "hi {number}"},
        {"role": "user", "content": "About 4=2."},
    ]
    assert json.loads(run("render", path, "--version", "1", "--set", "number=é")[1]) == [
        {"role": "user", "content": "[é]"}
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "issue_number"], "'issue_number' is not TENSOR=VALUE"),
        ([], "tensor 'issue_number' is missing"),
        (["--version", "3"], "names version '3'"),
    ],
)
def test_a_fault_of_render_is_one_sentence(path: Path, arguments: list[str], sentence: str) -> None:
    code, output = run("render", path, *arguments)
    assert code != 0 and sentence in output and "Traceback" not in output


def test_show_refuses_a_folder_without_prompts(tmp_path: Path) -> None:
    assert run("show", tmp_path) == (1, "Error: no prompt file found\n")
