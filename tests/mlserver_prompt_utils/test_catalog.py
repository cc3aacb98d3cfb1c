"""The choice of a prompt for a request, and prompts that fail loading."""

import json
import logging
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters

from mlserver_chat import Message, PromptSettings, SettingsError, encode_history, load_settings
from mlserver_chat.llm.prompts import PromptCatalog, fill
from mlserver_chat.tensors import as_input


def version(number: object, content: str = "say {what}", **fields: object) -> dict[str, object]:
    return {"name": "p", "version": number, "template": [{"role": "user", "content": content}], **fields}


def catalog(folder: Path, **extra: object) -> PromptCatalog:
    settings = ModelSettings(name="m", implementation="x.Y", parameters=ModelParameters(extra=extra))
    found = load_settings(PromptSettings, settings).catalog(folder)
    assert found is not None
    return found


def write(path: Path, data: object) -> None:
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    later = path.stat().st_mtime + 10 * (1 + len(path.read_text(encoding="utf-8")))
    os.utime(path, (later, later))


def test_without_a_prompt_there_is_no_catalog(tmp_path):
    settings = ModelSettings(name="m", implementation="x.Y", parameters=ModelParameters(extra={"prompt_utils": {}}))
    assert load_settings(PromptSettings, settings).catalog(tmp_path) is None


def test_a_prompt_is_a_file_an_object_its_text_or_a_list(tmp_path):
    write(tmp_path / "one.json", version("1"))
    write(tmp_path / "many.json", [version("1"), version(2)])
    for source in ("one.json", version("1"), json.dumps(version("1")), [version("1")], ["one.json"]):
        assert catalog(tmp_path, prompt=source).select().version == "1"
    assert catalog(tmp_path, prompt="many.json").select().version == "2"
    assert catalog(tmp_path, prompt=["one.json", version("3")]).select().version == "3"


def test_a_version_can_be_pinned(tmp_path):
    pinned = catalog(tmp_path, prompt=[version("1"), version("2")], **{"prompt_options.version": "1"})
    assert pinned.select("any").version == "1"


def test_a_conversation_stays_on_its_arm_and_arms_follow_their_weights(tmp_path):
    split = catalog(tmp_path, prompt=[version("1"), version("2")], prompt_options={"arms": {"1": 90, "2": 10}})
    chosen = {f"conversation {i}": split.select(f"conversation {i}").version for i in range(2000)}
    assert all(split.select(memory_id).version == arm for memory_id, arm in chosen.items())
    assert 130 < Counter(chosen.values())["2"] < 270
    only = catalog(tmp_path, prompt=[version("1"), version("2")], prompt_options={"arms": {"1": 0, "2": 1}})
    assert {only.select(str(i)).version for i in range(50)} == {"2"}


def test_a_prompt_changes_while_running_only_with_reload(tmp_path, caplog):
    path = tmp_path / "p.json"
    write(path, version("1"))
    fixed = catalog(tmp_path, prompt="p.json")
    following = catalog(tmp_path, prompt="p.json", prompt_options={"reload": "true"})
    write(path, version("2", "shout {what}"))
    assert fixed.select().version == "1"
    with caplog.at_level(logging.INFO):
        assert following.select().version == "2"
        assert "prompt 'p' version '2' reloaded at 20" in caplog.text
        caplog.clear()
        for broken in ("{", version("3", type="unknown")):
            write(path, broken)
            assert following.select().version == following.select().version == "2"
            assert caplog.text.count("the previous version stays in use") == 1
            caplog.clear()
        path.unlink()
        assert following.select().version == "2"
        write(path, version("4"))
        assert following.select().version == "4"


def test_the_llm_modules_prompt_becomes_a_jinja_user_message(tmp_path):
    (tmp_path / "t.jinja").write_text("{{ greeting }} {% for m in messages %}{{ m.content }}{% endfor %}", "utf-8")
    options = {"uri": "t.jinja", "tokens": {"greeting": "Hey"}, "type": "jinja"}
    found = catalog(tmp_path, prompt_utils={"model_type": "chat.completions", "prompt_options": options})
    history = {"history": as_input(encode_history([Message.of_text("user", "hi")]))}
    assert fill(found.select(), history) == [Message.of_text("user", "Hey hi")]
    assert found.select().name == "t"


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"prompt": "nowhere.json"}, "prompt file 'nowhere.json' can't be read"),
        ({"prompt": "broken.json"}, "prompt file 'broken.json' is not JSON: Expecting value at line 1, column 10"),
        ({"prompt": []}, "'prompt' names no prompt"),
        ({"prompt": {"name": "p"}}, "'parameters.extra.prompt': 'template': field required"),
        ({"prompt": version("1", legend={"wat": {}})}, "the legend names 'wat', which is not in the template"),
        ({"prompt": version("1", "{{ oops", type="jinja")}, "the template is not valid Jinja"),
        ({"prompt": version("1", colour="red")}, "'colour': extra inputs are not permitted"),
        ({"prompt": version("1", type="f-string")}, "'type': input should be 'plain' or 'jinja'"),
        (
            {"prompt": {"name": "p", "template": [{"role": "placeholder", "content": "{x}"}]}},
            "can only hold '{history}'",
        ),
        ({"prompt": [version("1"), version("1")]}, "version '1' of prompt 'p' is defined twice"),
        ({"prompt": version("1"), "prompt_options": {"version": "7"}}, "names version '7'; the prompt has '1'"),
        ({"prompt": version("1"), "prompt_options": {"arms": {"7": 1}}}, "names version '7'; the prompt has '1'"),
        ({"prompt": version("1"), "prompt_options": {"arms": {"1": -1}}}, "the weights of 'arms' must be 0 or more"),
        ({"prompt": version("1"), "prompt_options": {"arms": {"1": 1}, "version": "1"}}, "set one of them"),
        ({"prompt": version("1"), "prompt_utils": {"prompt_options": {"uri": "t"}}}, "set one of them"),
        ({"prompt_utils": {"prompt_options": {"uri": "t"}}}, "prompt file 't' can't be read"),
    ],
)
def test_a_wrong_prompt_fails_loading(tmp_path, extra, sentence):
    (tmp_path / "broken.json").write_text('{"name": p}', encoding="utf-8")
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        catalog(tmp_path, **extra)


@pytest.mark.parametrize("name", ["answer-status", "answer-support"])
def test_the_demos_prompts_load(name):
    folder = Path(__file__).parents[2] / "models" / name
    prompt = catalog(folder, prompt="prompt.json").select()
    assert (prompt.name, prompt.invocation_config) == (name, {"max_tokens": 64, "temperature": 0})
