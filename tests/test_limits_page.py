"""`docs/limits.md` names every limit of the settings, with its real default."""

import re

import pytest

from mlserver_chat import errors, files, limits
from mlserver_chat.llm.prompts import jinja_process, jinja_renderer
from mlserver_chat.requests.identity import MAX_MEMORY_ID
from mlserver_chat.tensors import admission
from mlserver_classifier.fields import BUDGET_SECONDS
from mlserver_llm_api.settings import OpenAISettings
from mlserver_memory.filesys.keys import MAX_KEYS
from mlserver_memory.settings import MAX_WINDOW
from mlserver_pipeline.manifests import documents, manifest
from mlserver_pipeline.settings import PipelineSettings
from mlserver_prompt_utils.settings import PromptRuntimeSettings
from support import ROOT

PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| limit |")
]
FIXED = {
    "dimensions of a tensor": limits.MAX_DIMENSIONS,
    "input tensors of a request": limits.MAX_TENSORS,
    "parameters of a request": limits.MAX_PARAMETERS,
    "zeros that a pipeline's address": limits.MAX_PADDING,
    "characters of a request's `id`": admission.MAX_ID,
    "characters of a tensor's name": admission.MAX_NAME,
    "characters of a `memory_id`": MAX_MEMORY_ID,
    "characters of a `stop` text": limits.MAX_STOP_CHARACTERS,
    "characters that are kept of another server's error": errors.MAX_SENTENCE,
    "seconds to search for a field": BUDGET_SECONDS,
    "seconds to render a Jinja": jinja_renderer.MAX_RENDER_SECONDS,
    "characters of a rendered Jinja": jinja_renderer.MAX_RENDERED_CHARACTERS,
    "bytes of memory to render": jinja_process.MAX_MEMORY,
    "Jinja templates that are rendered at once": jinja_renderer.MAX_PROCESSES,
    "bytes of a settings file": files.MAX_FILE_BYTES,
    "levels of nesting of a JSON file": files.MAX_JSON_DEPTH,
    "documents of a manifest": documents.MAX_DOCUMENTS,
    "levels of nesting of a manifest": documents.MAX_DEPTH,
    "keys and values of a manifest": documents.MAX_VALUES,
    "steps of a pipeline": manifest.MAX_STEPS,
    "entries of a folder": files.MAX_FOLDER_ENTRIES,
    "depth of a folder": files.MAX_FOLDER_DEPTH,
    "messages of a window": MAX_WINDOW,
    "keys of appends": MAX_KEYS,
}
SETTINGS = {
    **{
        f"MLSERVER_LLM_{name.upper()}": field.default
        for name, field in limits.ServerLimits.model_fields.items()
        if name != "tenant_header"
    },
    **{f"limits.{name}": field.default for name, field in limits.GenerationLimits.model_fields.items()},
    "config.timeout": OpenAISettings.model_fields["timeout"].default,
    "config.stream_timeout": OpenAISettings.model_fields["stream_timeout"].default,
    "config.connect_timeout": OpenAISettings.model_fields["connect_timeout"].default,
    "timeout": PromptRuntimeSettings.model_fields["timeout"].default,
    "step_timeout": PipelineSettings.model_fields["step_timeout"].default,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_has_its_row_and_its_default(setting: str) -> None:
    defaults = [default for _, default, settings, _ in ROWS if f"`{setting}`" in settings]
    assert defaults, f"docs/limits.md lacks {setting}"
    assert {float(default) for default in defaults} == {float(SETTINGS[setting])}


@pytest.mark.parametrize("limit", FIXED)
def test_a_fixed_limit_has_its_value(limit: str) -> None:
    (default,) = [default for name, default, _, _ in ROWS if name.startswith(limit)]
    assert float(default) == FIXED[limit]


def test_every_row_says_the_answer() -> None:
    assert all(len(row) == 4 and row[3] for row in ROWS)
    assert set(re.findall(r"`(limits\.\w+)`", PAGE)) <= set(SETTINGS)
