"""The examples in the docs of the LLM runtimes load and run."""

import json
import re
from pathlib import Path

import pytest
from mlserver import ModelSettings

from mlserver_chat import Message, load_settings
from mlserver_chat.llm.prompts import Prompt
from mlserver_llm_api import LLMSettings
from mlserver_llm_local.runtime import Local
from mlserver_llm_local.settings import LocalSettings
from mlserver_prompt_utils.settings import PromptRuntimeSettings
from support import ROOT

CLASSES = {
    "mlserver_llm_local.runtime.Local": LocalSettings,
    "mlserver_llm_api.LLMRuntime": LLMSettings,
    "mlserver_prompt_utils.runtime.PromptRuntime": PromptRuntimeSettings,
}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", ["local.md", "api.md", "prompts.md"])
def test_settings_and_prompts_on_a_page_load(page, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    found = [json.loads(block) for block in blocks(page, "json")]
    assert any("implementation" in example for example in found)
    for example in found:
        if "implementation" in example:
            kind = CLASSES[example["implementation"]]
            assert load_settings(kind, ModelSettings.model_validate({**example, "implementation": "x.Y"}))
        else:
            assert Prompt.model_validate(example).name


async def test_the_example_backend_works(tmp_path: Path):
    (tmp_path / "my_module.py").write_text(blocks("local.md", "python")[0], encoding="utf-8")
    extra = {"backend": "my_module.MyBackend"}
    settings = ModelSettings.model_validate(
        {"name": "own", "implementation": "x.Y", "parameters": {"uri": str(tmp_path), "extra": extra}}
    )
    local = Local(settings)
    assert await local.load()
    backend = local._step._backend
    assert (await backend.complete([Message.of_text("user", "hi")], {})).text == "HI!"
    assert [chunk.text async for chunk in backend.stream([Message.of_text("user", "hi")], {})] == ["HI!"]
    assert await local.unload()
