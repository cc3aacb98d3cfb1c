"""`mlserver-llm check` reports each fault in one sentence, with file and key, and exits with 1 for errors."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from check_cases import CLASSIFIER, CLASSIFY, EXTRA, FAULTS, GOOD, MEMORY, REMEMBER, Files, changed
from mlserver_llm_cli.main import main
from support import ROOT


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner(catch_exceptions=False).invoke(main, ["check", *map(str, arguments)])


def findings(folder: Path) -> list[tuple[str, str, str, str]]:
    report = json.loads(run(folder, "--format", "json").stdout)
    return [(f["level"], os.path.relpath(f["file"], folder), f["key"], f["sentence"]) for f in report["findings"]]


def test_a_good_repository_has_no_findings(tmp_path: Path) -> None:
    result = run(write(tmp_path, GOOD))
    assert result.stdout == "5 models, 1 prompt, 1 manifest: 0 errors, 0 warnings\n"
    assert result.exit_code == 0
    assert not list(tmp_path.rglob("__pycache__")), "a check leaves no trace"


@pytest.mark.parametrize(("files", "level", "file", "key", "words"), FAULTS, ids=range(len(FAULTS)))
def test_a_fault_is_one_sentence_with_file_and_key(
    tmp_path: Path, files: Files, level: str, file: str, key: str, words: str
) -> None:
    found = findings(write(tmp_path, GOOD | files))
    sentences = [sentence for *place, sentence in found if place == [level, file, key]]
    assert any(words in sentence for sentence in sentences), found
    assert "sk-planted" not in str(found)
    assert run(tmp_path).exit_code == (1 if level == "error" else 0)


def test_all_faults_are_reported_not_only_the_first(tmp_path: Path) -> None:
    extra = {"routes": [{"name": "A"}, {"nam": "b"}], "treshold": 1, "timeout": "x"}
    found = findings(
        write(tmp_path, GOOD | {CLASSIFY: changed(CLASSIFIER, parameters__extra=extra), "settings.json": {}})
    )
    assert {key for *_, key, _ in found} >= {
        f"{EXTRA}.routes.0.name",
        f"{EXTRA}.routes.1.name",
        f"{EXTRA}.routes.1.nam",
        f"{EXTRA}.treshold",
        f"{EXTRA}.timeout",
        "debug",
    }


def test_plain_secrets_cause_warnings_and_are_not_shown(tmp_path: Path) -> None:
    api = {
        "provider_id": "openai",
        "config": {"model_id": "m", "api_key": "sk-planted", "base_url": "http://127.0.0.1:1/v1"},
        "llm_parameters": {"extra_headers": {"Authorization": "Bearer sk-planted"}},
    }
    sql = {"database": "sql", "config": {"url": "postgresql+pg8000://me:sk-planted@db/x"}}
    files = {
        "api/model-settings.json": {"implementation": "mlserver_llm_api.LLMRuntime", "parameters": {"extra": api}},
        "sql/model-settings.json": changed(MEMORY, parameters__extra=sql),
    }
    found = findings(write(tmp_path, GOOD | files))
    assert [(level, key) for level, _, key, _ in found] == [
        ("warning", f"{EXTRA}.config.api_key"),
        ("warning", f"{EXTRA}.llm_parameters.extra_headers.Authorization"),
        ("warning", f"{EXTRA}.config.url"),
    ]
    assert "sk-planted" not in str(found)


def test_an_unavailable_secret_is_only_a_warning(tmp_path: Path) -> None:
    extra = {"provider_id": "openai", "config": {"model_id": "m", "api_key": "env:NOT_SET_HERE"}}
    settings = {"implementation": "mlserver_llm_api.LLMRuntime", "parameters": {"extra": extra}}
    ((level, _, _, sentence),) = findings(write(tmp_path, GOOD | {"api/model-settings.json": settings}))
    assert level == "warning" and "'env:NOT_SET_HERE' is not available here" in sentence


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"settings.json": GOOD["settings.json"], REMEMBER: MEMORY})
    extra = {"provider_id": "openai", "config": {"model_id": "m", "base_url": "http://127.0.0.1:1/v1"}}
    api = {"implementation": "mlserver_llm_api.LLMRuntime", "parameters": {"extra": extra}}
    write(tmp_path, {"api/model-settings.json": api})
    code = (
        "import sys; sys.modules['openai'] = sys.modules['regex'] = None\n"
        "from pathlib import Path; from mlserver_llm_cli.checks import check_paths\n"
        "print(*check_paths([Path(sys.argv[1])]).findings, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert "mlserver_llm_api.LLMRuntime can't be imported" in line
    assert line.endswith("; pip install 'mlserver-llm[openai]'")


def test_a_folder_with_nothing_to_check_is_an_error(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert "contains no model-settings.json" in result.stdout and result.exit_code == 1


def test_two_versions_of_one_model_are_valid(tmp_path: Path) -> None:
    versions = {f"m/{n}/model-settings.json": changed(CLASSIFIER, name="m", parameters__version=str(n)) for n in (1, 2)}
    assert findings(write(tmp_path, {"settings.json": {"debug": False}} | versions)) == []


def test_single_files_can_be_checked(tmp_path: Path) -> None:
    write(tmp_path, GOOD | {"answer/prompt.json": {"name": "p"}, "settings.json": {"debug": False, "x": 1}})
    assert run(tmp_path / CLASSIFY).exit_code == 0
    assert run(tmp_path / "chat" / "chat.yaml").exit_code == 0
    for name in ("answer/prompt.json", "settings.json"):
        result = run(tmp_path / name)
        assert result.exit_code == 1 and name in result.stdout
    assert run(tmp_path / "absent").exit_code == 2


def test_the_documentation_shows_the_real_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines")
    for name, old, new in (
        ("models/route-request/model-settings.json", "default_route", "defualt_route"),
        ("pipelines/support-chat.yaml", "answer-status", "anwser-status"),
        ("models/settings.json", '"debug": false', '"host": "127.0.0.1"'),
    ):
        path = tmp_path / name
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").split("$ mlserver-llm check models pipelines\n")[1]
    assert shown.startswith(run("models", "pipelines").stdout + "```")


def test_the_demo_is_checked_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from mlserver_llm_cli.checks import check_paths\n"
        "report = check_paths([Path('models'), Path('pipelines')])\n"
        "print(*report.findings, sep='\\n'); print(len(report.models), [m for m in ('torch', 'transformers', 'openai')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    models = len(list(ROOT.glob("models/*/model-settings.json")))
    assert done.stdout.splitlines()[-1] == f"{models} []"
