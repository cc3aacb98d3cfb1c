"""A user's own backend or scorer, beside `model-settings.json` or installed."""

from pathlib import Path

import pytest

from mlserver_chat import SettingsError
from mlserver_chat.llm.backends import import_backend, import_scorer
from mlserver_chat.testing import FakeBackend, FakeScorer

MINE = "class Mine:\n    def __init__(self, size: int):\n        self.size = size\n"


def test_a_module_beside_the_settings_takes_precedence_and_is_not_shared(tmp_path: Path) -> None:
    for name, text in (("a", MINE), ("b", MINE.replace("= size", "= -size"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(text, encoding="utf-8")
    sizes = [vars(import_backend("mine.Mine", tmp_path / name, {"size": 3}))["size"] for name in ("a", "b")]
    assert sizes == [3, -3]


def test_installed_classes_are_found(tmp_path: Path) -> None:
    backend = import_backend("mlserver_chat.testing.FakeBackend", tmp_path, {"reply": "hi"})
    assert isinstance(backend, FakeBackend) and backend.reply == "hi"
    assert isinstance(import_scorer("mlserver_chat.testing.FakeScorer", tmp_path, {}), FakeScorer)


@pytest.mark.parametrize(
    ("dotted", "sentence"),
    [
        ("Mine", "backend 'Mine' is not a dotted name; expected 'module.Class'"),
        ("absent_module.Mine", "can't be imported: ModuleNotFoundError"),
        ("broken.Mine", "can't be imported: SyntaxError"),
        ("secret.Mine", "can't be imported: OSError$"),
        ("mine.Absent", "can't be imported: AttributeError"),
        ("mine.Mine", "refuses 'config.model_settings'"),
    ],
)
def test_a_class_that_cannot_be_built_is_a_settings_error(tmp_path: Path, dotted: str, sentence: str) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "secret.py").write_text("raise OSError('sk-planted')", encoding="utf-8")
    (tmp_path / "broken.py").write_text("class", encoding="utf-8")
    for _ in range(2):  # a module that failed once is not taken for a good one
        with pytest.raises(SettingsError, match=sentence.replace("(", "\\(")):
            import_backend(dotted, tmp_path, {})
