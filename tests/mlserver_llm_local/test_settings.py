"""The settings accept the keys of the LLM Module and refuse everything that would run a repository's code."""

import re

import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters

from mlserver_chat import SettingsError, load_settings
from mlserver_llm_local.settings import CustomConfig, LocalSettings


def load(extra: dict[str, object]) -> LocalSettings:
    parameters = ModelParameters(extra=extra)
    settings = ModelSettings(name="m", implementation="mlserver_llm_local.runtime.Local", parameters=parameters)
    return load_settings(LocalSettings, settings)


def with_model(**settings: object) -> dict[str, object]:
    return {"config": {"model_settings": {"model": ".", **settings}}}


def test_the_documented_keys_are_known():
    settings = load(
        with_model(load_kwargs={"revision": "main"}, device="cpu", dtype="float16", max_tokens=-1)
        | {"backend": "transformers", "llm_parameters": {"temperature": 0}}
    )
    assert settings.defaults == {"max_tokens": -1}


def test_default_generate_kwargs_override_max_tokens():
    assert load(with_model(default_generate_kwargs={"max_tokens": 9})).defaults == {"max_tokens": 9}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"best_of": 3}, "option 'best_of' is not supported by this model; supported are max_tokens"),
        ({"temperature": -1}, "option 'temperature': input should be greater than or equal to 0"),
        ({"max_tokens": 0}, "option 'max_tokens': expected at least 1"),
    ],
)
def test_a_prompt_with_unsupported_options_does_not_load(tmp_path, config, sentence):
    prompt = {"name": "p", "version": "2", "template": [{"role": "user", "content": "x"}], "invocation_config": config}
    settings = load(with_model() | {"prompt": prompt})
    with pytest.raises(SettingsError, match=re.escape(f"prompt 'p' version '2': 'invocation_config': {sentence}")):
        settings.catalog(tmp_path)
    own = load({"backend": "my_module.MyBackend", "prompt": prompt})
    assert own.catalog(tmp_path) is not None


def test_a_custom_backend_gets_its_settings_unchecked():
    settings = load({"backend": "my_module.MyBackend", "config": {"model_settings": {"anything": 1}}})
    assert isinstance(settings.config, CustomConfig) and settings.config.model_settings == {"anything": 1}


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({}, "'parameters.extra.config.model_settings' is missing"),
        ({"config": {"model_settings": {}}}, "'parameters.extra.config.model_settings.model' is missing"),
        (with_model(modle="x"), "did you mean 'model'?"),
        ({"backend": "vllm", **with_model()}, "serve the model with vllm's own OpenAI-compatible server"),
        ({"backend": "deepspeed", **with_model()}, "mlserver_llm_api.LLMRuntime"),
        ({"backend": "llama", **with_model()}, "expected 'transformers' or a dotted name"),
        (with_model(load_kwargs={"trust_remote_code": False}), "'trust_remote_code' and 'code_revision' are refused"),
        (with_model(load_kwargs={"use_safetensors": False}), "'use_safetensors' can't be switched off"),
        (with_model(load_kwargs={"attn_implementation": "someone/kernel"}), "'attn_implementation' from the Hub"),
        (with_model(tensor_parallel_size=4), "this backend runs a model on one device"),
        (with_model(dtype="int3"), "'parameters.extra.config.model_settings.dtype'"),
        (with_model(default_generate_kwargs={"num_beams": 2}), "num_beams"),
        ({"llm_parameters": {"temperature": -1}, **with_model()}, "temperature"),
        ({"config": {"model_type": "completions", "model_settings": {"model": "."}}}, "should be 'chat.completions'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(extra, sentence):
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        load(extra)
