from pathlib import Path
from typing import Any

import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest
from prometheus_client import REGISTRY

from mlserver_chat import NotReachable, SettingsError, load_settings
from mlserver_memory import ConversationalMemory, FileSysSettings, MemorySettings, SqlSettings, open_store
from mlserver_memory.sql import SqlStore
from support import free_ports, text


def loaded(**extra: Any) -> MemorySettings:
    settings = ModelSettings(name="memory", implementation=ConversationalMemory)
    settings.parameters = ModelParameters(extra=extra)
    return load_settings(MemorySettings, settings)


def test_the_vendor_s_settings_load_as_documented() -> None:
    settings = loaded(
        database="sql",
        prompt_utils={"model_type": "chat.completions"},
        config={
            "model_type": "chat.completions",
            "url": "postgresql+pg8000://admin:admin@postgres:5432/db",
            "connection_options": {},
            "window_size": 50,
            "tensor_names": ["role", "content", "type", "tool_call_id", "tool_calls"],
        },
    )
    assert isinstance(settings.config, SqlSettings)
    assert settings.config.window_size == 50


def test_the_vendor_s_defaults_hold() -> None:
    config = loaded(database="filesys").config
    assert isinstance(config, FileSysSettings)
    assert (config.path, config.window_size, config.tensor_names) == ("data", 10, ["role", "content", "type"])


def test_flat_strings_are_settings_too() -> None:
    config = loaded(
        **{
            "database": "sql",
            "config.url": "sqlite:///a.db",
            "config.window_size": "5",
            "config.tensor_names": '["role", "content"]',
            "config.pin_system": "false",
            "config.connection_options": '{"pool_size": 2}',
        }
    ).config
    assert isinstance(config, SqlSettings)
    assert (config.window_size, config.tensor_names, config.pin_system) == (5, ["role", "content"], False)
    assert config.connection_options == {"pool_size": 2}


def test_the_environment_fills_what_the_file_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_MODEL_MEMORY_URL", "sqlite:///from-env.db")
    monkeypatch.setenv("MLSERVER_MODEL_MEMORY_WINDOW_SIZE", "3")
    config = loaded(database="sql").config
    assert isinstance(config, SqlSettings)
    assert (config.url.get_secret_value(), config.window_size) == ("sqlite:///from-env.db", 3)
    config = loaded(database="sql", config={"url": "sqlite:///from-file.db"}).config
    assert isinstance(config, SqlSettings)
    assert config.url.get_secret_value() == "sqlite:///from-file.db"


def test_a_url_by_reference_never_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = "postgresql://user:hunter2@host/db"
    monkeypatch.setenv("DATABASE", secret)
    (tmp_path / "url").write_text(secret + "\n", encoding="utf-8")
    for reference in ("env:DATABASE", f"file:{tmp_path / 'url'}", secret):
        settings = loaded(database="sql", config={"url": reference})
        assert isinstance(settings.config, SqlSettings)
        assert settings.config.url.get_secret_value() == secret
        assert "hunter2" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"database": "redis"}, "'parameters.extra.database'"),
        ({"database": "sql"}, "'parameters.extra.config.url' is missing"),
        ({"database": "filesys", "config": {"windowsize": 5}}, "did you mean 'window_size'"),
        ({"database": "filesys", "config": {"url": "sqlite:///x"}}, "'parameters.extra.config.url' is not a known key"),
        ({"database": "filesys", "config": {"window_size": 0}}, "'parameters.extra.config.window_size'"),
        ({"database": "filesys", "config": {"tensor_names": ["role", "name"]}}, "'name' is not a tensor of a message"),
        ({"database": "filesys", "config": {"tensor_names": ["content"]}}, "'role' is missing"),
        ({"database": "filesys", "config": {"output_tensors": ["tool_calls"]}}, "which 'tensor_names' lacks"),
        ({"database": "filesys", "config": {"model_type": "completions"}}, "'parameters.extra.config.model_type'"),
    ],
)
def test_a_fault_is_named(extra: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        loaded(**extra)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"url": "sqlite://"}, "SQLite database in memory"),
        ({"url": "sqlite:///:memory:"}, "SQLite database in memory"),
        ({"url": "no url:hunter2"}, "not a SQLAlchemy URL"),
        ({"url": "nosuch://u:hunter2@h/d"}, "which SQLAlchemy doesn.t know"),
        ({"url": "oracle+oracledb://u:hunter2@h/d"}, "needs the driver"),
        ({"url": "sqlite:///x.db", "connection_options": {"pool_sise": 2}}, "SQLAlchemy refuses"),
    ],
)
def test_a_store_that_can_not_be_is_a_load_error(
    config: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_LLM_DATA", str(tmp_path))
    with pytest.raises(SettingsError, match=sentence) as error:
        open_store(loaded(database="sql", config=config))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"database": "sql", "config": {"url": "sqlite:///here.db"}}, "here.db"),
        ({"database": "filesys", "config": {"path": "here"}}, "here"),
    ],
)
async def test_a_relative_path_is_below_the_data_folder_and_the_log_names_it(
    extra: dict[str, Any], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mlserver.memory")
    monkeypatch.setenv("MLSERVER_LLM_DATA", str(tmp_path))
    store = open_store(loaded(**extra))
    await store.open()
    await store.aclose()
    assert (tmp_path / path).exists()
    assert f"memory is stored in {tmp_path / path}" in caplog.text


async def test_a_database_that_is_down_does_not_stop_loading(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    settings = ModelSettings(name="memory", implementation=ConversationalMemory)
    config = {"url": f"postgresql+pg8000://user:hunter2@127.0.0.1:{port}/db"}
    settings.parameters = ModelParameters(extra={"database": "sql", "config": config})
    model = ConversationalMemory(settings)
    assert await model.load()
    request = InferenceRequest.model_validate({"inputs": [text("memory_id", "a")]})
    with pytest.raises(NotReachable, match="not reachable: the memory store can't be reached") as error:
        await model.predict(request)
    assert REGISTRY.get_sample_value("mlserver_memory_store_reachable", {"model_name": "memory"}) == 0
    assert error.value.status_code == 503
    stats = await model._store.stats()
    assert not stats.reachable
    assert "hunter2" not in caplog.text + str(error.value) + stats.detail
    assert caplog.text.count("can't be reached") >= 1
    await model.unload()


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:pa@ss@db/chat", "postgresql+psycopg://me:pa@ss/word@db/chat", "mysql://me:p@ss@db:3306/chat"],
)
def test_an_unescaped_at_sign_in_a_password_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="write one in a password as %40") as refused:
        SqlStore(url)
    assert "ss" not in str(refused.value).replace("password", "")


def test_an_escaped_at_sign_in_a_password_is_fine() -> None:
    assert SqlStore("postgresql+psycopg://me:pa%40ss@db/chat").place == "postgresql db/chat"
