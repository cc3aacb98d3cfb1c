"""Files of any kind and folders of any shape are read within bounds, or refused with one sentence."""

import glob
import json
import os
import socket
from pathlib import Path

import pytest
from mlserver import MLModel, ModelSettings
from mlserver.settings import ModelParameters

from mlserver_chat import files
from mlserver_chat.calls.siblings import repository_models
from mlserver_chat.files import MAX_JSON_DEPTH, UnreadableFile, find_files, parse_json, read_json, read_text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.json"


def refusal(path: Path, max_bytes: int = 100) -> str:
    with pytest.raises(UnreadableFile) as refused:
        read_json(path, max_bytes)
    return str(refused.value)


def test_text_is_read_through_links(path: Path, tmp_path: Path) -> None:
    path.write_bytes("é\n".encode())
    (tmp_path / "link").symlink_to("file.json")
    assert read_text(tmp_path / "link", max_bytes=3) == "é\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not JSON: Expecting value at line 1, column 1"),
        (b"1" * 101, "is larger than 100 bytes"),
        (b"\xff", "is not UTF-8 text"),
        (b'{"a":\n]', "is not JSON: Expecting value at line 2, column 1"),
        (rb'{"a": ["\ud800"]}', "holds half of a surrogate pair"),
        (rb'{"\udfff": 1}', "holds half of a surrogate pair"),
    ],
)
def test_content_that_cannot_be_used_is_refused(path: Path, content: bytes, sentence: str) -> None:
    path.write_bytes(content)
    assert refusal(path) == sentence


@pytest.mark.parametrize("nested", ["[" * 500_000, "[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1)])
def test_deep_json_is_refused(nested: str) -> None:
    with pytest.raises(UnreadableFile, match=f"nested more than {MAX_JSON_DEPTH} levels deep"):
        parse_json(nested)


def test_json_of_the_deepest_nesting_is_read() -> None:
    nested = "[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH
    assert json.dumps(parse_json(nested)) == nested


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="too many digits"):
        parse_json("1" * 5000)


def test_only_regular_files_are_opened(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in (path.name, "zero", "socket", "."):
            assert refusal(tmp_path / name) == "is not a regular file"
    assert refusal(tmp_path / "loop") == "can't be read: its symbolic links lead in a circle"
    assert refusal(tmp_path / "absent") == "can't be read: No such file or directory"
    assert refusal(tmp_path / ("a" * 300)) == "can't be read: File name too long"
    assert refusal(tmp_path / "a\0b") == "can't be read: its name is not a valid path"
    assert refusal(tmp_path / "a\ud800b") == "can't be read: its name is not a valid path"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_are_found_as_mlserver_finds_them(tmp_path: Path) -> None:
    touch(tmp_path, "b/c/x.json", "a.yaml", ".hidden/x.json", "b/.x.json")
    (tmp_path / "linked").symlink_to("b")
    (tmp_path / "dangling.json").symlink_to("absent")
    found = find_files(tmp_path)
    names = ["b/c/x.json", "dangling.json", "linked/c/x.json"]
    assert found.named("*.json") == [tmp_path / name for name in names]
    # MLServer itself searches by `glob`.
    assert sorted(glob.glob(f"{tmp_path}/**/*.json", recursive=True)) == [str(tmp_path / name) for name in names]
    assert found.named("*.yaml") == [tmp_path / "a.yaml"]
    assert found.left_out == {}


def test_a_linked_folder_is_a_model_of_the_repository(tmp_path: Path) -> None:
    touch(tmp_path, "repository/a/model-settings.json", "elsewhere/b/model-settings.json")
    for name in ("repository/a", "elsewhere/b"):
        (tmp_path / name / "model-settings.json").write_text("{}", encoding="utf-8")
    (tmp_path / "repository" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    uri = str(tmp_path / "repository" / "a")
    owner = ModelSettings(name="a", implementation=MLModel, parameters=ModelParameters(uri=uri))
    assert repository_models(owner) == {"a", "b"}


def test_links_in_a_circle_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.json", "b/y.json")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    found = find_files(tmp_path)
    assert len(found.files) == 4
    assert set(found.left_out) == {tmp_path / "a/up", tmp_path / "a/b/a", tmp_path / "b/a/up", tmp_path / "b/a/b"}
    assert all("in a circle" in sentence for sentence in found.left_out.values())


def test_a_search_ends_at_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{n}.json" for n in range(20)), "a/b/c/x.json")
    monkeypatch.setattr(files, "MAX_FOLDER_DEPTH", 2)
    assert find_files(tmp_path).left_out == {tmp_path / "a/b/c": "lies more than 2 folders deep"}
    monkeypatch.setattr(files, "MAX_FOLDER_ENTRIES", 10)
    assert find_files(tmp_path).left_out == {tmp_path: "contains more than 10 files and folders"}


def test_links_between_many_folders_end_the_search_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FOLDER_ENTRIES", 10_000)
    for name in "abcdefghi":
        (tmp_path / name).mkdir()
        for other in "abcdefghi":
            (tmp_path / name / other).symlink_to(tmp_path / other)
    assert find_files(tmp_path).left_out[tmp_path] == "contains more than 10000 files and folders"
