"""The check of commit subjects, over a repository of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

SCRIPT = ROOT / ".ci" / "commit-subjects"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path, "Start")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    identity = {f"GIT_{role}_{kind}": "x" for role in ("AUTHOR", "COMMITTER") for kind in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=folder, env=os.environ | identity, check=True, capture_output=True)


def commit(folder: Path, subject: str) -> None:
    git(folder, "commit", "-q", "--allow-empty", "-m", subject)


def check(folder: Path, *commits: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, SCRIPT, *commits], cwd=folder, capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout


def test_good_subjects_pass(repository: Path) -> None:
    for subject in ("Retry appends after a lock timeout", "Add " + "x" * 68, "Test that a store closes"):
        commit(repository, subject)
    assert check(repository, "HEAD") == (0, "")


@pytest.mark.parametrize(
    ("subject", "fault"),
    [
        ("Add " + "x" * 69, "has 73 characters; expected at most 72"),
        ("Add a store.", "ends with a full stop"),
        ("add a store", "doesn't begin with a capital letter"),
        ("The store closes", "begins with 'The'; expected a verb in the imperative"),
        ("What a store holds", "begins with 'What'; expected a verb in the imperative"),
    ],
)
def test_a_bad_subject_is_named_with_its_fault(repository: Path, subject: str, fault: str) -> None:
    commit(repository, subject)
    commit(repository, "Add a table")
    code, output = check(repository, "HEAD~2..HEAD")
    assert code == 1
    assert output.partition(" ")[2] == f"{subject}: {fault}\n"


def test_a_clone_without_the_first_commit_is_not_checked(repository: Path) -> None:
    commit(repository, "no good.")
    assert check(repository) == (0, "commit subjects: the range is not in this clone, so none was checked\n")
