"""Settings of the API runtime: the LLM Module's keys, references to secrets, and clear refusals."""

import re
from pathlib import Path

import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters

from mlserver_chat import SettingsError, load_settings
from mlserver_llm_api import LLMRuntime, LLMSettings
from mlserver_llm_api.settings import GEMINI_URL, OPENAI_URL, GeminiSettings, OpenAISettings

MINIMAL = {"provider_id": "openai", "config": {"model_id": "m", "base_url": "http://127.0.0.1:9/v1"}}


def model_settings(extra: dict[str, object]) -> ModelSettings:
    return ModelSettings(
        name="api", implementation="mlserver_llm_api.LLMRuntime", parameters=ModelParameters(extra=extra)
    )


def load(extra: dict[str, object]) -> LLMSettings:
    return load_settings(LLMSettings, model_settings(extra))


def test_the_documented_example_loads_with_a_key_from_the_environment(monkeypatch):
    monkeypatch.setenv("MLSERVER_MODEL_OPENAI_API_KEY", "sk-env")
    config = load({"provider_id": "openai", "config": {"model_id": "gpt-3.5-turbo", "model_type": "chat.completions"}})
    assert isinstance(config.config, OpenAISettings)
    assert config.config.api_key.get_secret_value() == "sk-env"
    assert config.config.base_url == OPENAI_URL


def test_a_key_may_be_a_reference_to_a_variable_or_a_file(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("SOME_KEY", "sk-1")
    (tmp_path / "key").write_text("sk-2\n", encoding="utf-8")
    for reference, key in (("env:SOME_KEY", "sk-1"), (f"file:{tmp_path}/key", "sk-2")):
        config = load({"provider_id": "openai", "config": {"model_id": "m", "api_key": reference}})
        assert config.config.api_key.get_secret_value() == key
        assert key not in repr(config)


def test_gemini_is_called_through_its_openai_compatible_api(monkeypatch):
    monkeypatch.setenv("MLSERVER_MODEL_GEMINI_API_KEY", "g-key")
    config = load({"provider_id": "gemini", "config": {"model_id": "gemini-2.5-flash"}})
    assert isinstance(config.config, GeminiSettings) and config.config.base_url == GEMINI_URL


def test_flat_strings_set_nested_keys():
    config = load(
        {"provider_id": "openai", "config.model_id": "m", "config.base_url": "http://x/v1", "config.max_retries": "0"}
        | {"config.timeout": "7.5", "config.llm_parameters": '{"temperature": 0}'}
    )
    assert (config.config.max_retries, config.config.timeout) == (0, 7.5)
    assert config.config.llm_parameters == {"temperature": 0}


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({}, "'parameters.extra.provider_id' is missing"),
        ({"provider_id": "anthropic"}, "'parameters.extra.provider_id': input should be 'openai' or 'gemini'"),
        ({"provider_id": "openai"}, "'model_id' is missing"),
        ({"provider_id": "openai", "config": {"model_id": "m"}}, "'api_key' is missing; set it to 'env:NAME'"),
        ({"provider_id": "gemini", "config": {"model_id": "m"}}, "MLSERVER_MODEL_GEMINI_API_KEY"),
        ({"provider_id": "openai", "config": {"modelid": "m"}}, "did you mean 'model_id'?"),
        (
            {"provider_id": "openai", "config": {"model_id": "m", "api_key": "env:NOT_SET_ANYWHERE"}},
            "it refers to the environment variable NOT_SET_ANYWHERE, which is not set",
        ),
        (
            {"provider_id": "openai", "config": {"model_id": "m", "model_type": "embeddings"}},
            "'parameters.extra.config.model_type': input should be 'chat.completions'",
        ),
        (
            {"provider_id": "openai", "config": {"model_id": "m", "base_url": "http://me:pass@host/v1"}},
            "expected an http or https URL without credentials",
        ),
        (
            {"provider_id": "openai", "config": {"model_id": "m", "api_type": "azure", "api_key": "k"}},
            "api_type 'azure' needs 'azure_endpoint' and 'api_version'",
        ),
        (
            {
                "provider_id": "gemini",
                "config": {"model_id": "m", "api_key": "k", "llm_parameters": {"safety_settings": []}},
            },
            "use OpenAI's names",
        ),
        ({**MINIMAL, "llm_parameters": {"stream": True}}, "option 'stream' can't be set for a single call"),
        ({**MINIMAL, "llm_parameters": {"extra_body": "x"}}, "option 'extra_body' is not an object"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(extra, sentence):
    with pytest.raises(SettingsError, match=re.escape(sentence)) as caught:
        load(extra)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"messages": []}, "option 'messages' can't be set for a single call"),
        ({"timeout": "soon"}, "option 'timeout' is not a number of seconds greater than 0"),
        ({"extra_headers": ["x"]}, "option 'extra_headers' is not an object"),
    ],
)
async def test_a_prompt_with_a_fixed_option_fails_loading(config, sentence):
    prompt = {"name": "p", "template": [{"role": "user", "content": "x"}], "invocation_config": config}
    runtime = LLMRuntime(model_settings({**MINIMAL, "prompt": prompt}))
    with pytest.raises(SettingsError, match=f"prompt 'p' version '1': 'invocation_config': {sentence}"):
        await runtime.load()


async def test_loading_makes_no_call_and_unload_works_without_load(tmp_path: Path):
    runtime = LLMRuntime(model_settings(MINIMAL))
    assert await runtime.unload()
    assert await runtime.load()
    assert await runtime.unload()
