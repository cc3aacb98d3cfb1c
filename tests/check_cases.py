"""A model repository without faults, and one variant for each fault that `mlserver-llm check` reports."""

import json
from typing import Any

Files = dict[str, Any]

CLASSIFIER: Files = {
    "implementation": "mlserver_classifier.Classifier",
    "parameters": {"extra": {"routes": [{"name": "a"}, {"name": "b"}], "scorer": "mlserver_chat.testing.FakeScorer"}},
}
MEMORY: Files = {
    "implementation": "mlserver_memory.ConversationalMemory",
    "parameters": {"extra": {"database": "filesys"}},
}
PROMPT: Files = {"name": "p", "template": [{"role": "user", "content": "{question}"}]}
API: Files = {
    "implementation": "mlserver_llm_api.LLMRuntime",
    "parameters": {
        "extra": {
            "provider_id": "openai",
            "config": {"model_id": "m", "base_url": "http://host/v1"},
            "prompt": PROMPT,
        }
    },
}
GOOD: Files = {
    "settings.json": {"debug": False, "parallel_workers": 0},
    "classify/model-settings.json": CLASSIFIER,
    "remember/model-settings.json": MEMORY,
    "answer/model-settings.json": {
        "implementation": "mlserver_prompt_utils.runtime.PromptRuntime",
        "parameters": {"extra": {"llm": "classify", "prompt": "prompt.json"}},
    },
    "answer/prompt.json": PROMPT,
    "own/model-settings.json": {"implementation": "mine.Mine"},
    "own/mine.py": "from mlserver import MLModel\nprint('noise')\nclass Mine(MLModel): ...\n",
    "chat/model-settings.json": {
        "implementation": "mlserver_pipeline.Pipeline",
        "parameters": {"extra": {"manifest": "chat.yaml"}},
    },
    "chat/chat.yaml": """
apiVersion: mlops.seldon.io/v1alpha1
kind: Pipeline
metadata: {name: support}
spec:
  steps:
  - name: remember
  - name: answer
    inputs: [remember.outputs.history]
  output: {steps: [answer]}
""",
}


def changed(base: Files, **changes: Any) -> Files:
    """`base` with the keys of `changes` (dots lead inside, None removes)."""
    copy = json.loads(json.dumps(base))
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = copy
        for part in path:
            inner = inner.setdefault(part, {})
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    return copy


CLASSIFY = "classify/model-settings.json"
REMEMBER = "remember/model-settings.json"
ANSWER = "answer/model-settings.json"
EXTRA = "parameters.extra"

FAULTS: list[tuple[Files, str, str, str, str]] = [
    ({CLASSIFY: "{"}, "error", CLASSIFY, "", "is not JSON"),
    ({CLASSIFY: "[]"}, "error", CLASSIFY, "", "is not a JSON object"),
    (
        {CLASSIFY: '{"name": "a", "name": "b", "implementation": "mine.Mine"}'},
        "error",
        CLASSIFY,
        "name",
        "appears twice",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, implementation=None, implementaton="x.Y")},
        "error",
        CLASSIFY,
        "implementation",
        "'implementation' is missing",
    ),
    ({CLASSIFY: changed(CLASSIFIER, paramters={})}, "error", CLASSIFY, "paramters", "did you mean 'parameters'?"),
    (
        {CLASSIFY: changed(CLASSIFIER, parameters__extras={})},
        "error",
        CLASSIFY,
        "parameters.extras",
        "did you mean 'extra'?",
    ),
    ({CLASSIFY: changed(CLASSIFIER, versions=3)}, "error", CLASSIFY, "versions", "valid list"),
    ({CLASSIFY: changed(CLASSIFIER, name="my_model")}, "error", CLASSIFY, "name", "Core 2 rejects"),
    (
        {CLASSIFY: changed(CLASSIFIER, name="own")},
        "error",
        "own/model-settings.json",
        "name",
        "serve only one",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, implementation="nowhere.Model")},
        "error",
        CLASSIFY,
        "implementation",
        "No module named 'nowhere'",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, implementation="mlserver_classifier.Clasifier")},
        "error",
        CLASSIFY,
        "implementation",
        "Clasifier",
    ),
    (
        {
            "twin/model-settings.json": {"implementation": "mine.Mine"},
            "twin/mine.py": "from mlserver import MLModel\nclass Mine(MLModel):\n    x = 1\n",
        },
        "error",
        "twin/model-settings.json",
        "implementation",
        "which it would replace in MLServer; rename one of them",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, parameters__extra__scorer="absent.Scorer")},
        "error",
        CLASSIFY,
        f"{EXTRA}.scorer",
        "scorer 'absent.Scorer' can't be imported",
    ),
    ({"own/mine.py": "class Mine: ..."}, "error", "own/model-settings.json", "implementation", "not a subclass of"),
    ({"own/mine.py": "class Mine(\n"}, "error", "own/model-settings.json", "implementation", "SyntaxError"),
    (
        {"own/mine.py": "raise RuntimeError('sk-planted')"},
        "error",
        "own/model-settings.json",
        "implementation",
        "Error",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, parameters__extra__treshold=1)},
        "error",
        CLASSIFY,
        f"{EXTRA}.treshold",
        "did you mean 'threshold'?",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, parameters__extra__threshold=0.5)},
        "error",
        CLASSIFY,
        EXTRA,
        "'threshold' needs a 'default_route'",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, parameters__extra__scorer="logprob")},
        "warning",
        CLASSIFY,
        f"{EXTRA}.llm",
        "loads only on Core 2",
    ),
    (
        {ANSWER: changed(GOOD[ANSWER], parameters__extra__llm="absent")},
        "error",
        ANSWER,
        f"{EXTRA}.llm",
        "'absent', but the repository has no such model",
    ),
    (
        {ANSWER: changed(GOOD[ANSWER], parameters__extra__llm="answer")},
        "error",
        ANSWER,
        f"{EXTRA}.llm",
        "the model itself",
    ),
    ({REMEMBER: changed(MEMORY, cache_enabled=True)}, "error", REMEMBER, "", "'cache_enabled'"),
    ({REMEMBER: changed(MEMORY, max_batch_size=8)}, "error", REMEMBER, "", "'max_batch_size' 8"),
    (
        {CLASSIFY: changed(CLASSIFIER, max_batch_time=0.1)},
        "warning",
        CLASSIFY,
        "max_batch_time",
        "Core 2 drops",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, parameters__colour="red")},
        "warning",
        CLASSIFY,
        "parameters.colour",
        "Core 2 drops",
    ),
    (
        {CLASSIFY: changed(CLASSIFIER, inputs=[{"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {}}])},
        "warning",
        CLASSIFY,
        "inputs.0.parameters",
        "Core 2 drops",
    ),
    ({"settings.json": "{]"}, "error", "settings.json", "", "is not JSON"),
    ({"settings.json": {"debug": False, "http_prot": 1}}, "error", "settings.json", "http_prot", "'http_port'?"),
    ({"settings.json": {"debug": False, "http_port": "x"}}, "error", "settings.json", "http_port", "valid integer"),
    (
        {"settings.json": {"debug": False, "cors_settings": {"allow_origin": []}}},
        "error",
        "settings.json",
        "cors_settings.allow_origin",
        "did you mean 'allow_origin",
    ),
    ({"settings.json": {"parallel_workers": 0}}, "warning", "settings.json", "debug", "'debug' is on"),
    ({"own/mine.py": "raise SystemExit(0)"}, "error", "own/model-settings.json", "implementation", "SystemExit"),
    (
        {"settings.json": {"debug": False}},
        "error",
        "chat/model-settings.json",
        "parallel_workers",
        "a pipeline can't run in a worker process",
    ),
    (
        {"settings.json": {"debug": False}, CLASSIFY: changed(CLASSIFIER, parallel_workers=0)},
        "error",
        ANSWER,
        "parallel_workers",
        "'classify' runs in the main process",
    ),
    ({"answer/prompt.json": "{"}, "error", "answer/prompt.json", "", "not JSON"),
    (
        {"answer/prompt.json": changed(PROMPT, legend={"other": {}})},
        "error",
        "answer/prompt.json",
        "",
        "the legend names 'other', which is not in the template",
    ),
    ({"answer/old.json": changed(PROMPT, versoin="1")}, "error", "answer/old.json", "", "versoin"),
    (
        {ANSWER: changed(GOOD[ANSWER], parameters__extra__prompt="absent.json")},
        "error",
        "answer/absent.json",
        "",
        "can't be read",
    ),
    (
        {ANSWER: changed(GOOD[ANSWER], parameters__extra__prompt_options={"version": "7"})},
        "error",
        ANSWER,
        f"{EXTRA}.prompt",
        "names version '7'",
    ),
    (
        {"api/model-settings.json": changed(API, parameters__extra__prompt__invocation_config={"stream": True})},
        "error",
        "api/model-settings.json",
        f"{EXTRA}.prompt",
        "'invocation_config': option 'stream' can't be set for a single call",
    ),
    (
        {"chat/chat.yaml": GOOD["chat/chat.yaml"].replace("answer", "anwser")},
        "error",
        "chat/chat.yaml:8",
        "spec.steps[1].name",
        "step 'anwser' is no model of the repository",
    ),
    (
        {"chat/chat.yaml": GOOD["chat/chat.yaml"].replace("inputs:", "input:")},
        "error",
        "chat/chat.yaml:9",
        "spec.steps[1].input",
        "did you mean 'inputs'?",
    ),
    (
        {
            "chat/chat.yaml": GOOD["chat/chat.yaml"].replace(
                "- name: remember", "- {name: classify}\n  - name: remember\n    triggers: [classify.outputs.c]"
            )
        },
        "warning",
        "chat/chat.yaml:9",
        "spec.steps[1].triggers[0]",
        "'classify.outputs.c' never arrives, because 'classify' emits no tensor 'c'",
    ),
    (
        {"chat/chat.yaml": GOOD["chat/chat.yaml"].replace("- name: remember", "- name: own\n  - name: remember")},
        "warning",
        "chat/chat.yaml:7",
        "spec.steps[0].name",
        "nothing reads the outputs of step 'own'",
    ),
    ({"other/flow.yaml": "kind: Pipeline\nspec: ["}, "error", "other/flow.yaml:1", "", "YAML"),
    ({"new/model_settings.json": {}}, "error", "new/model_settings.json", "", "did you mean model-settings.json?"),
]
