"""Checks one model of a repository: loads it as far as possible without weights, stores and calls."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from mlserver import MLModel, ModelSettings
from mlserver.repository.load import load_model_settings
from pydantic import ValidationError

from mlserver_chat import ChatError, PromptSettings, Runtime, Settings, SettingsError, SiblingSettings, load_settings
from mlserver_chat.calls.siblings import repository_models
from mlserver_chat.llm.backends import find_class
from mlserver_chat.requests.identity import NAME_PATTERN
from mlserver_chat.settings import secrets_may_be_absent, settings_faults
from mlserver_chat.tensors import TENSOR_NAMES
from mlserver_pipeline import PipelineSettings

from .findings import Finding, error, warning
from .jsonfiles import read_object, wrong_values
from .keys import check_keys, check_secrets
from .manifests import check_manifest, manifest_files
from .prompts import check_catalog, check_prompt_file, prompt_files

FILE_NAME = "model-settings.json"
_EXTRA = "parameters.extra"


@dataclass
class CheckedModel:
    """A model, its findings, and the files that were checked with it."""

    path: Path
    findings: list[Finding] = field(default_factory=list[Finding])
    settings: ModelSettings | None = None
    """MLServer's settings of the model; None if they are invalid."""
    config: Settings | None = None
    """Settings of its runtime; None if it is no runtime of the suite, or if they are invalid."""
    emits: frozenset[str] | None = None
    """Tensors that its runtime may emit; None if it is no runtime of the suite, or if it can't be built."""
    files: set[Path] = field(default_factory=set[Path])
    """Prompts and manifests of the model."""


def check_model(path: Path) -> CheckedModel:
    """Check the model of a `model-settings.json`."""
    model = CheckedModel(path)
    content, found = read_object(path)
    model.findings += found
    if content is None:
        return model
    model.findings += [*check_keys(path, content), *check_secrets(path, content)]
    if "implementation" not in content:
        model.findings.append(error(path, "implementation", "'implementation' is missing, so MLServer skips the model"))
        return model
    try:
        model.settings = load_model_settings(str(path))
    except ValidationError as failure:
        model.findings += wrong_values(path, failure)
        return model
    name = model.settings.name
    if not NAME_PATTERN.fullmatch(name):
        sentence = f"'name' is '{name}', which Core 2 rejects; expected lower-case letters, digits and inner hyphens"
        model.findings.append(error(path, "name", sentence))
    model.findings += _check_implementation(model, model.settings)
    return model


def _check_implementation(model: CheckedModel, settings: ModelSettings) -> Iterator[Finding]:
    name = settings.implementation_
    try:
        implementation = cast(object, settings.implementation)
    except (Exception, SystemExit) as failure:  # importing a user's module runs its code
        yield error(model.path, "implementation", f"'implementation' {name} can't be imported: {_why(failure)}")
        return
    if not isinstance(implementation, type) or not issubclass(implementation, MLModel):
        yield error(model.path, "implementation", f"'implementation' {name} is not a subclass of mlserver.MLModel")
    elif issubclass(implementation, Runtime):
        with secrets_may_be_absent() as absent:
            yield from _check_runtime(model, settings, cast(type[Runtime[Any]], implementation))
        for reference in dict.fromkeys(absent):
            yield warning(
                model.path, _EXTRA, f"the secret '{reference}' is not available here; the model needs it to load"
            )


def _check_runtime(
    model: CheckedModel, settings: ModelSettings, implementation: type[Runtime[Any]]
) -> Iterator[Finding]:
    """Build the model. Runtimes of the suite reject invalid settings in the constructor."""
    faults = settings_faults(implementation.settings_class, settings)
    for key, sentence in faults:
        yield error(model.path, key, sentence)
    if faults:
        return
    model.config = load_settings(implementation.settings_class, settings)
    found = list(_check_config(model, settings, model.config))
    yield from found
    if any(finding.level == "error" for finding in found):
        return
    try:
        runtime = implementation(settings)
        model.emits = TENSOR_NAMES.union(tensor.name for tensor in runtime.outputs or ())
    except ChatError as failure:
        yield error(model.path, "", str(failure).removeprefix(f"model '{settings.name}': "))
    except Exception as failure:
        yield error(model.path, "", f"the model can't be built from these settings: {type(failure).__name__}")


def _check_config(model: CheckedModel, settings: ModelSettings, config: Settings) -> Iterator[Finding]:
    """Check the models, prompts and manifests that the settings refer to."""
    folder = model.path.parent
    siblings = repository_models(settings)
    if isinstance(config, SiblingSettings):
        yield from _check_llm(model.path, settings.name, config, siblings)
    for kind in ("backend", "scorer"):
        yield from _check_own_class(model.path, kind, getattr(config, kind, None))
    if isinstance(config, PromptSettings):
        files = prompt_files(config, folder)
        found = [finding for path in files for finding in check_prompt_file(path)]
        model.files.update(files)
        yield from found or check_catalog(model.path, config, folder)
    if isinstance(config, PipelineSettings):
        for path in manifest_files(config, folder):
            model.files.add(path)
            yield from check_manifest(path, settings)


def _check_llm(path: Path, name: str, config: SiblingSettings, siblings: set[str]) -> Iterator[Finding]:
    if not config.calls_llm or config.infer_uri or config.llm_uri:
        return
    key = f"{_EXTRA}.llm"
    if config.llm is None:
        yield warning(
            path, key, f"'{key}' is missing; without it the model loads only on Core 2, with spec.llm in its Model"
        )
    elif config.llm == name:
        yield error(path, key, f"'{key}' names the model itself; expected another model")
    elif config.llm not in siblings:
        yield error(
            path,
            key,
            f"'{key}' is '{config.llm}', but the repository has no such model; expected one of its models or 'llm_uri'",
        )


def _check_own_class(path: Path, kind: str, value: object) -> Iterator[Finding]:
    if isinstance(value, str) and "." in value:
        try:
            find_class(kind, value, path.parent)
        except SettingsError as failure:
            yield error(path, f"{_EXTRA}.{kind}", str(failure))


def _why(failure: BaseException) -> str:
    """Return the text of an error about code. Other errors may quote secrets, so return their type alone."""
    if isinstance(failure, ModuleNotFoundError):
        return f"{failure}{_extra_with(failure.name or '')}"
    if isinstance(failure, ImportError | SyntaxError | AttributeError | NameError):
        return f"{type(failure).__name__}: {failure}"
    # MLServer's error about a class that is missing in the module.
    return getattr(failure, "message_template", None) or type(failure).__name__


def _extra_with(module: str) -> str:
    """Return how to install a module that belongs to one of our extras."""
    for requirement in metadata.requires("mlserver-llm") or ():
        found = re.fullmatch(r"([\w-]+).*;.*extra == [\"'](\w+)[\"'].*", requirement)
        if found and found[1].lower() == module.partition(".")[0]:
            return f"; pip install 'mlserver-llm[{found[2]}]'"
    return ""
