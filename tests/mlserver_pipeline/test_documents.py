"""Hostile manifest files are refused quickly with one sentence."""

import os
from pathlib import Path

import pytest

from mlserver_chat import SettingsError
from mlserver_chat.files import MAX_FILE_BYTES
from mlserver_pipeline.manifests.crds import holds_resource
from mlserver_pipeline.manifests.documents import MAX_DOCUMENTS, read_documents
from mlserver_pipeline.manifests.graph import compile_graph
from mlserver_pipeline.manifests.lint import lint_file
from mlserver_pipeline.manifests.loading import load_graphs
from mlserver_pipeline.manifests.manifest import MAX_STEPS, read_manifests
from pipeline_lab import manifest_text

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LAUGHS, "more than 50000 keys and values, each alias counted in full"),
        ("a: " + "[" * 100_000, "pipeline.yaml:1: nested more than 64 levels deep"),
        ("a: &a [*a]", "pipeline.yaml:1: an alias stands within the value that it names"),
        ('b: 1\na: "\\ud800"', "pipeline.yaml:2: a text holds half of a surrogate pair"),
        ("--- {a: 1}\n" * (MAX_DOCUMENTS + 1), "more than 1000 documents"),
        ("a: 2001-99-99", "pipeline.yaml:1: a date or number in this document can't be read"),
        ("a: " + "1" * 5000, "a date or number in this document can't be read"),
        ("a: !!bool maybe", "a date or number in this document can't be read"),
        ("a: !!timestamp x", "a date or number in this document can't be read"),
    ],
)
def test_hostile_yaml_is_refused_with_one_sentence(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_graphs("pipeline.yaml", tmp_path)
    assert reason in str(refused.value)
    (finding,) = lint_file(path)
    assert finding.rule == "unreadable" and reason in finding.sentence


def test_alias_may_be_used_several_times(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("a: &a {b: [1, 2]}\nc: [*a, *a]\n", encoding="utf-8")
    (document,) = read_documents(path)
    assert document.content["c"] == [{"b": [1, 2]}, {"b": [1, 2]}]
    assert document.position(("c",)) == "pipeline.yaml:2"


def chain(steps: int) -> str:
    lines = [f"- {{name: s{n}, inputs: [{f's{n - 1}' if n else 'p'}]}}" for n in range(steps)]
    # The worst order: each step reads the one listed after it.
    return manifest_text("\n".join(["steps:", *reversed(lines), f"output: {{steps: [s{steps - 1}]}}"]))


def test_largest_pipeline_is_ordered_upstream_first(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(chain(MAX_STEPS), encoding="utf-8")
    assert lint_file(path) == []
    graph = compile_graph(read_manifests(path)[0].manifest)
    assert graph.steps == tuple(f"s{n}" for n in range(MAX_STEPS))
    assert len(graph.behind("s0")) == MAX_STEPS


def test_too_many_steps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(chain(MAX_STEPS + 1), encoding="utf-8")
    (finding,) = lint_file(path)
    assert (finding.line, finding.key) == (5, "spec.steps")
    assert finding.sentence == "field 'spec.steps': list should have at most 1000 items after validation, not 1001"


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "large.yaml").write_text("#" * (MAX_FILE_BYTES + 1), encoding="utf-8")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    for name, reason in (
        ("fifo", "is not a regular file"),
        ("zero", "is not a regular file"),
        ("large", f"is larger than {MAX_FILE_BYTES} bytes"),
        ("latin", "is not UTF-8 text"),
        ("absent", "can't be read: No such file or directory"),
    ):
        path = tmp_path / f"{name}.yaml"
        (finding,) = lint_file(path)
        assert finding.sentence.endswith(reason)
        assert not holds_resource(path)
