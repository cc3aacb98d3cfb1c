"""`mlserver-llm memory`, as a user runs it."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlserver_chat import Message
from mlserver_llm_cli.memory import memory
from mlserver_memory.conformance.tools import key, say, system, user
from mlserver_memory.filesys import FileSysStore
from mlserver_memory.sql import SqlStore, migrations
from mlserver_memory.sql import store as sql_store
from support import free_ports


@pytest.fixture(params=["url", "model", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to name a store; it holds conversations `a` (4 messages) and `b` (1), and `c` in namespace `other`."""
    monkeypatch.setenv("MLSERVER_LLM_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    named = str(tmp_path / "files")
    if request.param == "url":
        named = f"sqlite:///{tmp_path}/memory.db"
    elif request.param == "model":
        folder = tmp_path / "model"
        folder.mkdir()
        extra = {"database": "sql", "config": {"url": "sqlite:///memory.db"}}
        settings = {"name": "m", "implementation": "mlserver_memory.ConversationalMemory"}
        (folder / "model-settings.json").write_text(json.dumps(settings | {"parameters": {"extra": extra}}), "utf-8")
        named = str(folder)
    else:
        (tmp_path / "files").mkdir()
    asyncio.run(fill(tmp_path, request.param))
    return named


async def fill(folder: Path, kind: str) -> None:
    store = FileSysStore(folder / "files") if kind == "files" else SqlStore(f"sqlite:///{folder}/memory.db")
    await say(store, "a", system("be kind"), user("hello [bold] \x1b[31m"))
    reply = [Message.of_text("assistant", "hi 🙂"), user("bye")]
    await store.append(key("a", reply), reply, 1, {"prompt": "answer", "prompt_version": "2"})
    await say(store, "b", user("alone"))
    await say(store.scope("other"), "c", user("elsewhere"))
    await store.aclose()


def run(*arguments: object, text: str | None = None, fails: bool = False) -> Result:
    result = CliRunner().invoke(memory, [str(each) for each in arguments], input=text)
    assert (result.exit_code != 0) == fails, result.output
    return result


def listed(store: str, *options: str) -> dict[str, int]:
    lines = run("list", store, "--json", *options).stdout.splitlines()
    return {row["memory_id"]: row["messages"] for row in map(json.loads, lines)}


def test_conversations_are_listed_and_shown(store: str) -> None:
    assert listed(store) == {"a": 4, "b": 1}
    assert listed(store, "--namespace", "other") == {"c": 1}
    assert "memory_id" in run("list", store).stdout
    shown = run("show", store, "a").stdout.splitlines()
    assert len(shown) == 4
    assert "user hello [bold] \N{REPLACEMENT CHARACTER}[31m" in shown[1]
    assert "hi 🙂 prompt=answer prompt_version=2" in shown[2]


def test_an_export_comes_back_by_import(store: str, tmp_path: Path) -> None:
    file, copy = tmp_path / "all.jsonl", f"sqlite:///{tmp_path}/copy.db"
    run("export", store, "-o", file)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [row["memory_id"] for row in rows].count("a") == 4
    assert "would import 5 messages" in run("import", copy, file, "--dry-run").stdout
    assert listed(copy) == {}
    assert "imported 5 messages" in run("import", copy, file).stdout
    again = run("export", copy, "a").stdout
    assert [json.loads(line) for line in again.splitlines()] == [row for row in rows if row["memory_id"] == "a"]
    assert json.loads(again.splitlines()[2])["provenance"] == {"prompt": "answer", "prompt_version": "2"}
    assert "imported 0 messages" in run("import", copy, file).stdout


def test_a_backup_of_all_namespaces_comes_back_to_them(store: str, tmp_path: Path) -> None:
    assert "other" in run("list", store, "--all-namespaces").stdout
    backup, copy = run("export", store, "--all-namespaces").stdout, f"sqlite:///{tmp_path}/copy.db"
    assert "imported 6 messages" in run("import", copy, "-", text="\ufeff" + backup).stdout
    assert listed(copy) == {"a": 4, "b": 1}
    assert listed(copy, "--namespace", "other") == {"c": 1}
    assert sorted(run("export", copy, "--all-namespaces").stdout.splitlines()) == sorted(backup.splitlines())


def test_a_time_that_no_calendar_has_is_shown_as_it_is(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/odd.db")
    message = [user("hi")]
    asyncio.run(store.append(key("a", message), message, 1, created=1e30))
    asyncio.run(store.aclose())
    assert "1e+30" in run("list", f"sqlite:///{tmp_path}/odd.db").stdout
    assert "1e+30" in run("show", f"sqlite:///{tmp_path}/odd.db", "a").stdout


def test_an_interrupted_import_is_continued_and_another_conversation_is_left_alone(store: str, tmp_path: Path) -> None:
    copy = f"sqlite:///{tmp_path}/copy.db"
    lines = run("export", store, "a").stdout.splitlines(keepends=True)
    run("import", copy, "-", text="".join(lines[:2]))
    assert "imported 2 messages" in run("import", copy, "-", text="".join(lines)).stdout
    assert listed(copy) == {"a": 4}
    other = lines[0].replace("be kind", "be rude")
    refused = run("import", copy, "-", text=other, fails=True)
    assert "not imported, because other messages are stored there: a" in refused.output
    assert listed(copy) == {"a": 4}


def test_what_was_deleted_can_be_imported_again(store: str) -> None:
    lines = run("export", store, "a").stdout
    assert "would delete a: 4 messages" in run("delete", store, "a", "--dry-run").stdout
    assert "deleted a: 4 messages" in run("delete", store, "a").stdout
    assert listed(store) == {"b": 1}
    run("import", store, "-", text=lines)
    assert listed(store) == {"a": 4, "b": 1}


def test_pruning_says_first_what_it_would_do(store: str) -> None:
    assert "would remove 2 messages" in run("prune", store, "--max-messages", 1, "--dry-run").stdout
    assert listed(store) == {"a": 4, "b": 1}
    assert "removed 2 messages" in run("prune", store, "--max-messages", 1).stdout
    assert listed(store) == {"a": 2, "b": 1}
    assert "removed 0 messages" in run("prune", store, "--older-than", "30d", "--all-namespaces").stdout
    assert "removed 4 messages" in run("prune", store, "--older-than", "0s", "--all-namespaces").stdout
    assert listed(store, "--namespace", "other") == {}


def test_long_work_shows_its_progress_on_a_terminal_only(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, copy = tmp_path / "all.jsonl", f"sqlite:///{tmp_path}/copy.db"
    works = {
        "export": (store, "-o", file),
        "import": (copy, file),
        "prune": (copy, "--max-messages", 1, "--dry-run"),
    }
    for is_terminal in (False, True):
        monkeypatch.setenv("FORCE_COLOR", "1" if is_terminal else "")
        for work, arguments in works.items():
            shown = run(work, *arguments).stderr
            assert (work in shown and "%" in shown) == is_terminal, shown


def test_faults_are_one_sentence(store: str, tmp_path: Path) -> None:
    assert "give --older-than or --max-messages" in run("prune", store, fails=True).output
    assert "is not a duration such as" in run("prune", store, "--older-than", "soon", fails=True).output
    assert "line 1 is not JSON" in run("import", store, "-", text="no json\n", fails=True).output
    assert "there is no folder" in run("list", tmp_path / "nowhere", fails=True).output
    (tmp_path / "notes.txt").write_bytes(b"\xf9 no settings")
    assert "write a SQLite file as sqlite:///" in run("list", tmp_path / "notes.txt", fails=True).output
    assert "not UTF-8" in run("import", store, tmp_path / "notes.txt", fails=True).output
    assert "expected e.g. postgresql+psycopg" in run("list", "postgres://u:hunter2@h/d", fails=True).output
    assert "there is no conversation 'x'" in run("show", store, "x", fails=True).output
    assert "there is no conversation 'x'" in run("export", store, "b", "x", fails=True).output
    assert "not a duration" in run("prune", store, "--older-than", "5", fails=True).output
    for verb in (("list",), ("export",), ("prune", "--max-messages", 0)):
        both = run(*verb[:1], store, *verb[1:], "--namespace", "other", "--all-namespaces", fails=True)
        assert "not both" in both.output
    assert listed(store) == {"a": 4, "b": 1}
    assert "NO_SUCH" in run("list", "env:NO_SUCH", fails=True).output
    (port,) = free_ports(1)
    for url in (
        f"postgresql+pg8000://u:hunter2@127.0.0.1:{port}/db",
        "nosuch://u:hunter2@h/d",
        "sqlite://u:hunter2@h:x",
    ):
        output = run("list", url, fails=True).output
        assert len(output.splitlines()) == 1 and "hunter2" not in output, output
    rude = '{"memory_id": "z", "role": "user", "content": [], "created": "yesterday"}'
    assert "line 1: 'created' is not a time" in run("import", store, "-", text=rude, fails=True).output
    far = rude.replace('"yesterday"', "1795288798532412500")
    assert "line 1: 'created' is not a time" in run("import", store, "-", text=far, fails=True).output


def test_a_schema_is_made_when_it_is_needed_and_a_dry_run_makes_none(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "new.db"
    store = f"sqlite:///{file}"
    row = '{"memory_id": "a", "role": "user", "content": [{"type": "text", "value": "hi"}]}'
    assert "from version 0 to 3" in run("migrate", store, "--dry-run").stdout
    assert "would import 1 message\n" in run("import", store, "-", "--dry-run", text=row).stdout
    assert "would delete a: 0 messages" in run("delete", store, "a", "--dry-run").stdout
    assert "would remove 0 messages" in run("prune", store, "--older-than", "1d", "--dry-run").stdout
    assert listed(store) == {}
    assert f"the store is empty: sqlite {file}" in run("list", store).stderr
    assert not file.parent.exists()
    made = run("migrate", store).stdout
    assert "upgraded the schema from version 0 to 3" in made and "up to date; 0 conversations" in made
    assert "up to date; 0 conversations" in run("migrate", store, "--dry-run").stdout


def test_a_schema_of_an_older_release_is_upgraded_by_what_changes_a_store_only(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path(store).name == "files":
        pytest.skip("files have no schema")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, lambda connection, tables: None))
    monkeypatch.setattr(sql_store, "MIGRATIONS", migrations.MIGRATIONS)
    assert "run 'mlserver-llm memory migrate' first" in run("list", store, fails=True).output
    assert "from version 3 to 4" in run("migrate", store, "--dry-run").stdout
    assert "2 conversations, 5 messages" in run("migrate", store).stdout
    assert listed(store) == {"a": 4, "b": 1}
