"""Settings of PromptRuntime, including those that Core 2 writes."""

import re

import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters

from mlserver_chat import SettingsError
from mlserver_prompt_utils.runtime import PromptRuntime

INFER_URI = "http://seldon-mesh:80/v2/models/support-tiny/infer"


def runtime(extra: dict[str, object]) -> PromptRuntime:
    return PromptRuntime(ModelSettings(name="p", implementation="x.Y", parameters=ModelParameters(extra=extra)))


@pytest.mark.parametrize("llm", [{}, {"llm": "another-name-here"}])
async def test_the_llm_modules_settings_load_with_the_uri_that_core_2_writes(llm):
    step = runtime({"prompt_utils": {"model_type": "chat.completions"}, "infer_uri": INFER_URI, **llm})
    assert await step.load()
    assert step._step._llm == "support-tiny", "the Model's spec.llm.modelRef wins"
    assert await step.unload()


async def test_an_llm_on_another_server_is_named_by_url_and_name():
    step = runtime({"llm": "support-tiny", "llm_uri": "http://other:8080"})
    assert await step.load()
    assert step._step._llm == "support-tiny"
    assert await step.unload()


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({}, "model 'p': the LLM to call is not known; set 'llm' or 'llm_uri' in parameters.extra"),
        ({"llm": "tiny"}, "set 'llm_uri' (no model registry was found in this process)"),
        ({"llm_uri": "support-tiny"}, "'llm_uri' is not an http or https URL"),
        ({"llm": "tiny", "prompt": "nowhere.json"}, "prompt file 'nowhere.json' can't be read"),
        ({"lmm": "tiny"}, "'parameters.extra.lmm' is not a known key; did you mean 'llm'?"),
        ({"llm_uri": "http://x", "timeout": 0}, "'parameters.extra.timeout': input should be greater than 0"),
    ],
)
async def test_wrong_settings_are_refused_in_one_sentence(extra, sentence):
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        await runtime(extra).load()


async def test_unload_works_after_a_failed_load():
    step = runtime({"llm": "tiny"})
    with pytest.raises(SettingsError):
        await step.load()
    assert await step.unload()
