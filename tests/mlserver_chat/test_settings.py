"""Settings from `parameters.extra`, flat strings and the environment."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters

from mlserver_chat import Secret, Settings, SettingsError, load_settings, settings_folder
from mlserver_chat.settings import Options, data_folder, secrets_may_be_absent, settings_faults


class Inner(Settings):
    env_prefix: ClassVar[str] = "MLSERVER_MODEL_EXAMPLE_"
    window_size: int = 10
    api_key: Secret | None = None
    names: list[str] = []


class Outer(Settings):
    config: Inner = Inner()
    strict: bool = False
    note: str = ""


def load(extra: dict[str, Any]) -> Outer:
    settings = ModelSettings(name="m", implementation="mlserver.MLModel", parameters=ModelParameters(extra=extra))
    return load_settings(Outer, settings)


def test_flat_strings_of_a_model_resource_are_converted_and_merged() -> None:
    loaded = load({"config": '{"window_size": "20"}', "config.names": '["a", "b"]', "strict": "true", "note": "[1]"})
    assert (loaded.config.window_size, loaded.config.names, loaded.strict, loaded.note) == (20, ["a", "b"], True, "[1]")


def test_a_dotted_name_takes_precedence_over_the_nested_value() -> None:
    assert load({"config.window_size": "5", "config": {"window_size": 50}}).config.window_size == 5


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ({"strickt": True}, "'parameters.extra.strickt' is not a known key; did you mean 'strict'?"),
        ({"Strict": True}, "'parameters.extra.Strict' is not a known key; did you mean 'strict'?"),
        (
            {"config": {"windowsize": 1}},
            "'parameters.extra.config.windowsize' is not a known key; did you mean 'window_size'?",
        ),
        ({"config": {"window_size": "many"}}, "'parameters.extra.config.window_size': input should be a valid integer"),
    ],
)
def test_an_error_names_the_model_and_the_key(extra: dict[str, Any], names: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(extra)
    assert str(refused.value).startswith(f"model 'm': {names}")


def test_the_environment_fills_in_missing_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_MODEL_EXAMPLE_WINDOW_SIZE", "7")
    assert load({"config": {}}).config.window_size == 7
    assert load({"config": {"window_size": 8}}).config.window_size == 8


def test_a_secret_behind_a_reference_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXAMPLE_KEY", "sk-planted")
    (tmp_path / "key").write_text("sk-planted\n", encoding="utf-8")
    for reference in ("env:EXAMPLE_KEY", f"file:{tmp_path}/key"):
        loaded = load({"config": {"api_key": reference}})
        assert loaded.config.api_key is not None and loaded.config.api_key.get_secret_value() == "sk-planted"
        assert "sk-planted" not in repr(loaded) + loaded.model_dump_json()


@pytest.mark.parametrize("reference", ["env:NOT_SET", "file:/nowhere"])
def test_a_broken_reference_fails_loading(reference: str) -> None:
    with pytest.raises(SettingsError, match=r"config\.api_key': it refers to "):
        load({"config": {"api_key": reference}})


def test_settings_can_be_checked_without_their_secrets() -> None:
    with secrets_may_be_absent() as absent:
        assert load({"config": {"api_key": "env:NOT_SET"}}).config.api_key is not None
        load({"config": {"api_key": "file:/nowhere"}})
    assert absent == ["env:NOT_SET", "file:/nowhere"]
    with pytest.raises(SettingsError):
        load({"config": {"api_key": "env:NOT_SET"}})


def test_settings_faults_returns_all_faults_with_their_keys() -> None:
    parameters = ModelParameters(extra={"strickt": 1, "config": {"window_size": "many", "windowsize": 1}})
    faults = settings_faults(Outer, ModelSettings(name="m", implementation="mlserver.MLModel", parameters=parameters))
    assert sorted(key for key, _ in faults) == [
        "parameters.extra.config.window_size",
        "parameters.extra.config.windowsize",
        "parameters.extra.strickt",
    ]
    assert all(f"'{key}'" in sentence for key, sentence in faults)


def test_an_error_never_shows_the_value() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"config": {"window_size": "sk-planted", "names": "sk-planted"}})
    assert "sk-planted" not in str(refused.value)


def test_settings_made_in_code_use_the_working_directory() -> None:
    settings = ModelSettings(name="m", implementation="mlserver.MLModel")
    assert settings_folder(settings) == Path.cwd()
    assert load_settings(Outer, settings) == Outer()


def test_store_paths_resolve_against_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_folder() == Path.cwd()
    monkeypatch.setenv("MLSERVER_LLM_DATA", str(tmp_path))
    assert data_folder() == tmp_path.resolve()


class WithOptions(Settings):
    options: Options = {}


def test_library_options_may_refer_to_secrets_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_KEY", "sk-planted")
    loaded = WithOptions.model_validate({"options": {"headers": [{"authorization": "env:EXAMPLE_KEY"}], "n": 1}})
    assert loaded.options == {"headers": [{"authorization": "sk-planted"}], "n": 1}
    assert "sk-planted" not in repr(loaded)
