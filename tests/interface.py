"""The public interface of the suite as data: settings, statuses and tensors.

`python tests/interface.py` prints it; `tests/contract/interface.json` holds that of the first release.
"""

import json
from importlib import import_module
from typing import Any

RUNTIMES = {
    "mlserver_memory": "ConversationalMemory",
    "mlserver_classifier": "Classifier",
    "mlserver_llm_api": "LLMRuntime",
    "mlserver_llm_local.runtime": "Local",
    "mlserver_prompt_utils.runtime": "PromptRuntime",
    "mlserver_pipeline": "Pipeline",
}
_PROSE = ("description", "title")


def interface() -> dict[str, Any]:
    """Names, types and defaults of all settings; statuses of errors; tensors of runtimes."""
    runtimes = {name: getattr(import_module(module), name) for module, name in RUNTIMES.items()}
    return {
        "settings": {name: _settings(runtime.settings_class) for name, runtime in runtimes.items()},
        "statuses": _statuses(),
        "tensors": {
            name: {
                "inputs": [[each.name, str(each.datatype), list(each.shape)] for each in runtime.input_tensors],
                "outputs": [[each.name, str(each.datatype), list(each.shape)] for each in runtime.output_tensors],
            }
            for name, runtime in runtimes.items()
        },
    }


def _settings(settings_class: Any) -> dict[str, Any]:
    """The fields of a settings class and of the classes nested in it, by class and name."""
    schema = settings_class.model_json_schema()
    classes = {schema["title"]: schema, **schema.get("$defs", {})}
    return {name: _without_prose(each.get("properties", each)) for name, each in sorted(classes.items())}


def _without_prose(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_prose(each) for each in value]
    if not isinstance(value, dict):
        return value
    # A field may itself be called "description": its value is then a schema and no text.
    return {key: _without_prose(each) for key, each in value.items() if key not in _PROSE or isinstance(each, dict)}


def _statuses() -> dict[str, int]:
    errors = import_module("mlserver_chat.errors")
    leaves = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ChatError)]
    return {leaf.__name__: int(leaf.status) for leaf in leaves}


if __name__ == "__main__":
    print(json.dumps(interface(), indent=1, sort_keys=True))
