"""The command ends with sentences and an exit code for any file, even a hostile one."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from check_cases import ANSWER, CLASSIFY, GOOD
from mlserver_llm_cli.main import main

FILES = ("settings.json", CLASSIFY, ANSWER, "answer/prompt.json", "chat/chat.yaml", "own/mine.json", "own/flow.yaml")
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ESCAPE = "\x1b[31m\u202e\x9b"


def run(*arguments: str | Path, text: str | None = None) -> Result:
    result = CliRunner(catch_exceptions=False).invoke(main, list(map(str, arguments)), input=text)
    assert not CONTROLS.search(result.output)
    return result


def fill(folder: Path) -> Path:
    for name, content in GOOD.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good repository. Tests restore each file that they replace."""
    return fill(tmp_path_factory.mktemp("repository"))


texts = st.text(st.characters(), max_size=6) | st.sampled_from(
    [ESCAPE, "[/red]", "env:X", "file:/dev/zero", "a\0b", "\ud800", "a.B", ".."]
)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


def keys_of(content: Any) -> set[str]:
    if isinstance(content, dict):
        return set(content).union(*map(keys_of, content.values()))
    return set().union(*map(keys_of, content)) if isinstance(content, list) else set()


KEYS = sorted(
    keys_of(list(GOOD.values()))
    | {"name", "inputs", "outputs", "shape", "routes", "prompt_options", "prompt_utils", "legend", "type", "tokens"}
    | {"invocation_config", "fields", "config", "config.url", "llm_parameters", "limits", "version", "kind", "spec"}
)


@st.composite
def changed(draw: st.DrawFn, content: Any) -> Any:
    """Change a few known keys of `content` to arbitrary values."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        place = content
        while isinstance(place, dict) and place and draw(st.booleans()):
            inner = draw(st.sampled_from(sorted(place)))
            if not isinstance(place[inner], dict):
                break
            place = place[inner]
        if isinstance(place, dict):
            place[draw(st.sampled_from(KEYS) | texts)] = draw(values)
    return content


@st.composite
def hostile(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a file of the repository and its content."""
    name = draw(st.sampled_from(FILES))
    kind = draw(st.sampled_from(["bytes", "value", "changed", "changed", "cut"]))
    if kind == "bytes":
        return name, draw(st.binary(max_size=40))
    base = GOOD.get(name, GOOD["answer/prompt.json"])
    whole = kind == "value" or isinstance(base, str)
    content = json.dumps(draw(values if whole else changed(base)))
    if kind == "cut":
        content = content[: draw(st.integers(0, len(content)))]
    return name, content.encode()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile())
def test_check_ends_with_sentences_for_any_file(repository: Path, file: tuple[str, bytes]) -> None:
    name, content = file
    path = repository / name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    try:
        for arguments in ((), ("--format", "json")):
            result = run("check", repository, *arguments)
            assert result.exit_code in (0, 1)
            assert result.output.strip()
        assert run("pipeline", "lint", repository, "--models", repository).exit_code in (0, 1)
        assert run("prompts", "show", repository).exit_code in (0, 1)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def holding(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content, encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (fifo, "is not a regular file"),
        (endless, "is not a regular file"),
        (link_to_itself, "its symbolic links lead in a circle"),
        (holding("[" * 100_000), "levels deep"),
        (holding('{"a": "\\ud800"}'), "half of a surrogate pair"),
        (holding("1" * 5_000), "number"),
        (holding(" " * 2**20 + "{}"), "is larger than 1048576 bytes"),
    ],
)
@pytest.mark.parametrize("name", ["settings.json", CLASSIFY, "answer/prompt.json", "chat/chat.yaml"])
def test_check_names_a_file_that_cannot_be_read(
    tmp_path: Path, name: str, make: Callable[[Path], None], reason: str
) -> None:
    path = fill(tmp_path) / name
    path.unlink()
    make(path)
    for checked in (tmp_path, path) if path.exists() else (tmp_path,):
        result = run("check", checked)
        assert [line for line in result.output.splitlines() if line.startswith(str(path)) and reason in line]
        assert result.exit_code == 1


def test_check_does_not_follow_links_in_a_circle(tmp_path: Path) -> None:
    repository = fill(tmp_path)
    (repository / "own" / "up").symlink_to(repository)
    result = run("check", repository)
    assert f"{repository}/own/up: error: links to a folder that contains it; MLServer would follow" in result.output
    assert "5 models, 1 prompt, 1 manifest: 1 error, 0 warnings" in result.output


def test_a_secret_in_an_endless_file_is_a_warning(tmp_path: Path) -> None:
    extra = {"provider_id": "openai", "config": {"model_id": "m", "api_key": "file:/dev/zero"}}
    api = {"implementation": "mlserver_llm_api.LLMRuntime", "parameters": {"extra": extra}}
    (fill(tmp_path) / "api").mkdir()
    (tmp_path / "api" / "model-settings.json").write_text(json.dumps(api), encoding="utf-8")
    assert "warning: the secret 'file:/dev/zero' is not available here" in run("check", tmp_path).output


def test_files_cannot_control_the_terminal(tmp_path: Path) -> None:
    repository = fill(tmp_path)
    prompt = {"name": ESCAPE, "template": [{"role": ESCAPE, "content": "[bold]" + ESCAPE + "{x}"}], "extra": 1}
    for name in (f"{ESCAPE}\n.json", os.fsdecode(b"\xff.json")):
        (repository / name).write_text(json.dumps(prompt), encoding="utf-8")
    for name in (f"{ESCAPE}.yaml", os.fsdecode(b"\xff.yaml")):
        (repository / name).write_text(f'kind: Pipeline\nmetadata: {{name: "\\e[31m\\n"}}\n{ESCAPE}', encoding="utf-8")
    assert "4 errors" in run("check", repository).output
    assert len(json.loads(run("check", repository, "--format", "json").stdout)["findings"]) == 4
    for form in ("text", "json", "github"):
        assert run("pipeline", "lint", repository, "--format", form).exit_code == 1
    del prompt["extra"]
    path = repository / f"{ESCAPE}\n.json"
    path.write_text(json.dumps(prompt), encoding="utf-8")
    assert "[bold]\N{REPLACEMENT CHARACTER}[31m" in run("prompts", "show", path).output
    rendered = json.loads(run("prompts", "render", path, "--set", f"x={ESCAPE}").output)
    assert rendered[0]["content"] == f"[bold]{ESCAPE}{ESCAPE}"
    assert "\N{REPLACEMENT CHARACTER}" in run("pipeline", "graph", repository / f"{ESCAPE}.yaml").output


def test_a_file_name_cannot_forge_a_github_command(tmp_path: Path) -> None:
    name = "a,title=x::y\n::error::forged\n.yaml"
    (tmp_path / name).write_text("kind: Pipeline\nspec: [", encoding="utf-8")
    (line,) = run("pipeline", "lint", tmp_path, "--format", "github").output.splitlines()
    assert re.fullmatch(r"::error file=[^,:]*,line=\d+,title=unreadable::.*", line)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (f'{{"memory_id": "a", "role": "user", "content": {DEEP}', "line 2 is not JSON"),
        ('{"memory_id": "a", "role": "\\ud800", "content": []}', "line 2 holds half of a surrogate pair"),
        ('{"memory_id": "\\u001b[31m", "role": 1, "content": []}', "line 2 needs a text 'role'"),
        ("\xff" * (2**24 + 1), "line 2 is longer than 16777216 characters"),
    ],
)
def test_an_import_stops_at_a_line_it_cannot_use_and_changes_nothing(tmp_path: Path, line: str, sentence: str) -> None:
    good = '{"memory_id": "a", "role": "user", "content": [{"type": "text", "value": "hi"}]}'
    (tmp_path / "in.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    store = f"sqlite:///{tmp_path}/memory.db"
    result = run("memory", "import", store, tmp_path / "in.jsonl")
    assert result.exit_code == 1 and sentence in result.output
    assert run("memory", "list", store, "--json").stdout == ""


def test_an_endless_file_is_not_imported(tmp_path: Path) -> None:
    result = run("memory", "import", f"sqlite:///{tmp_path}/memory.db", "/dev/zero")
    assert result.exit_code == 1 and "line 1 is longer than" in result.output


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        (f'{{"messages": {DEEP}', "expected an object with 'messages' and 'route'"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}], "route": "a"}', "expected an object"),
        ('{"messages": [], "route": "a"}', "'messages' is empty"),
        ('{"messages": [{"role": "user", "content": 1}], "route": "a"', "expected an object"),
        ('\n{"messages": 1, "route": "a"}', ":2: expected an object"),
    ],
)
def test_cases_that_cannot_be_used_are_named_by_their_line(tmp_path: Path, cases: str, sentence: str) -> None:
    (tmp_path / "cases.jsonl").write_text(cases, encoding="utf-8")
    result = run("classifier", "eval", "http://127.0.0.1:9/v2/models/x/infer", tmp_path / "cases.jsonl")
    assert result.exit_code == 1 and sentence in result.output


@pytest.mark.parametrize("conversation", [DEEP, '[{"role": "user", "content": "\\ud800"}]', "[1]", "x" * 2**21, "{}"])
def test_a_conversation_that_cannot_be_used_is_refused(tmp_path: Path, conversation: str) -> None:
    (tmp_path / "prompt.json").write_text(json.dumps(GOOD["answer/prompt.json"]), encoding="utf-8")
    options = ("--set", "question=x", "--messages", "-")
    result = run("prompts", "render", tmp_path / "prompt.json", *options, text=conversation)
    assert result.exit_code == 2 and re.search("expected a JSON list|at most 1048576 characters", result.output)


@pytest.mark.parametrize("template", ["{{ " + "(" * 100_000, "{% if x %}" * 5_000, "{{ x" + "|upper" * 100_000 + " }}"])
def test_a_template_nested_too_deeply_is_refused(tmp_path: Path, template: str) -> None:
    prompt = {"name": "p", "type": "jinja", "template": [{"role": "user", "content": template}]}
    (tmp_path / "prompt.json").write_text(json.dumps(prompt), encoding="utf-8")
    result = run("check", tmp_path / "prompt.json")
    assert result.exit_code == 1 and "not valid Jinja" in result.output
