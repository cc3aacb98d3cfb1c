"""Settings of models. They stand under `parameters.extra`, because Core 2's agent drops every other custom key.

Core 2 may deliver values as flat strings (`Model.spec.parameters`). So "50", "true" and JSON strings are converted, and
dotted names such as `config.window_size` merge into nested settings. An unknown key is an error that names the key and
the most similar known one. Environment variables with the class's `env_prefix` fill in keys that the file lacks.
"""

import difflib
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast, get_args

from mlserver import ModelSettings
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from .errors import SettingsError, reason_of
from .files import UnreadableFile, parse_json, read_text

DATA_VARIABLE = "MLSERVER_LLM_DATA"
"""Environment variable with the base folder of relative store paths. Default: the working directory."""


_ABSENT: ContextVar[list[str] | None] = ContextVar("absent", default=None)


@contextmanager
def secrets_may_be_absent() -> Generator[list[str]]:
    """Accept references to secrets that this machine lacks, so that settings can be checked without their secrets.

    Yields:
        The list of such references. Each takes the place of its secret.
    """
    absent: list[str] = []
    token = _ABSENT.set(absent)
    try:
        yield absent
    finally:
        _ABSENT.reset(token)


def resolve_secret(value: object) -> object:
    """Return the secret behind a reference, `env:NAME` or `file:/path`, and any other value unchanged."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return value
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        if name not in os.environ:
            return _absent(text, f"it refers to the environment variable {name}, which is not set")
        return os.environ[name]
    if text.startswith("file:"):
        try:
            return read_text(Path(text.removeprefix("file:"))).strip()
        except UnreadableFile as error:
            return _absent(text, f"it refers to a file that {error}")
    return value


def _absent(reference: str, sentence: str) -> str:
    absent = _ABSENT.get()
    if absent is None:
        raise ValueError(sentence)
    absent.append(reference)
    return reference


Secret = Annotated[SecretStr, BeforeValidator(resolve_secret)]
"""A secret: `env:NAME`, `file:/path`, or the secret itself. No repr, log or error shows it."""


def _resolve_all(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolve_all(inner) for key, inner in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_resolve_all(inner) for inner in cast(list[Any], value)]
    return resolve_secret(value)


Options = Annotated[dict[str, Any], AfterValidator(_resolve_all), Field(repr=False)]
"""Options for a library. Texts in them may refer to secrets as `Secret` does, so no repr shows the options."""


class Settings(BaseModel):
    """Base class of settings. Converts strings, refuses unknown keys, and describes fields by their docstrings."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True, protected_namespaces=()
    )

    env_prefix: ClassVar[str] = ""
    """Prefix of the environment variables that fill in fields. The field's upper-case name follows it."""

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        values = dict(cast(dict[str, Any], data))
        if cls.env_prefix:
            for name in cls.model_fields:
                variable = cls.env_prefix + name.upper()
                if name not in values and variable in os.environ:
                    values[name] = os.environ[variable]
        for name, value in values.items():
            field = cls.model_fields.get(name)
            if field is not None and not _is_text_type(field.annotation):
                values[name] = _from_json(value)
        return values


def _is_text_type(annotation: object) -> bool:
    return annotation is str or annotation is SecretStr


def _from_json(value: object) -> object:
    """Parse a JSON list or object that arrived as a string, and return any other value unchanged."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return parse_json(value)
        except UnreadableFile:
            return value
    return value


class SiblingSettings(Settings):
    """Settings of a runtime that calls an LLM."""

    llm: str | None = None
    """Name of the LLM to call, a model of this server. On Core 2, the Model's `spec.llm.modelRef` takes precedence."""
    llm_uri: str | None = None
    """URL of the LLM to call on any V2 server: `http://host:8080/v2/models/<name>/infer`, or the server's base URL if
    `llm` names the model."""
    infer_uri: str | None = None
    """Set by Core 2's agent from `spec.llm`. Takes precedence over `llm` and `llm_uri`."""
    ssl_verify_path: str | None = None
    """CA file for `https` URLs. Set by Core 2's agent if TLS is on."""
    load_timeout: float = Field(default=60.0, gt=0)
    """Seconds to wait for the model `llm` while loading."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds for a whole answer of the LLM; in a stream, for each piece."""

    @property
    def calls_llm(self) -> bool:
        """Whether these settings need an LLM."""
        return True


SettingsT = TypeVar("SettingsT", bound=Settings)


def merge_dotted(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Merge dotted names into nested settings. A dotted name takes precedence.

    `{"config": {"a": 1}, "config.b": "2"}` becomes `{"config": {"a": 1, "b": "2"}}`.
    """
    merged: dict[str, Any] = {}
    for key, value in sorted(extra.items(), key=lambda item: item[0].count(".")):
        *path, last = key.split(".")
        target = merged
        for name in path:
            inner = _from_json(target.get(name, {}))
            target[name] = dict(cast(dict[str, Any], inner)) if isinstance(inner, dict) else {}
            target = target[name]
        target[last] = value
    return merged


def load_settings(settings_class: type[SettingsT], model_settings: ModelSettings) -> SettingsT:
    """Read the settings of a runtime from `parameters.extra` and the environment.

    Raises:
        SettingsError: a key is unknown or missing, or its value is wrong. The sentence names the model and the key, and
            never the value.
    """
    try:
        return settings_class.model_validate(_extra(model_settings))
    except ValidationError as error:
        _, sentence = _faults(settings_class, error)[0]
        raise SettingsError(f"model '{model_settings.name}': {sentence}") from error


def settings_faults(settings_class: type[Settings], model_settings: ModelSettings) -> list[tuple[str, str]]:
    """Return all faults for which `load_settings` would raise: the key, and a sentence that names it."""
    try:
        settings_class.model_validate(_extra(model_settings))
    except ValidationError as error:
        return _faults(settings_class, error)
    return []


def _extra(model_settings: ModelSettings) -> dict[str, Any]:
    return merge_dotted(cast(dict[str, Any], (model_settings.parameters and model_settings.parameters.extra) or {}))


def _faults(settings_class: type[BaseModel], error: ValidationError) -> list[tuple[str, str]]:
    known = sorted(_known_keys(settings_class))
    return [_fault(known, each) for each in error.errors(include_input=False, include_url=False)]


def _fault(known: list[str], error: ErrorDetails) -> tuple[str, str]:
    named = error["type"] in ("extra_forbidden", "missing")
    path = [part for part in error["loc"][:-1] if _is_key(part)]
    path += [part for part in error["loc"][-1:] if named or _is_key(part)]
    key = ".".join(["parameters.extra", *map(str, path)])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return key, f"'{key}' is not a known key" + (f"; did you mean '{near[0]}'?" if near else "")
    if error["type"] == "missing":
        return key, f"'{key}' is missing"
    return key, f"'{key}': {reason_of(error)}"


def _is_key(part: int | str) -> bool:
    """Whether a part of pydantic's path is a key, and not a union's member (`FileSysSettings`, `function-wrap[…]`)."""
    return not isinstance(part, str) or bool(re.fullmatch(r"[a-z0-9_.-]+", part))


def _known_keys(settings_class: type[BaseModel]) -> set[str]:
    names = set(settings_class.model_fields)
    for nested in settings_class.model_fields.values():
        for kind in _model_classes(nested.annotation):
            names |= _known_keys(kind)
    return names


def _model_classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for argument in get_args(annotation) for kind in _model_classes(argument)]


def settings_folder(model_settings: ModelSettings) -> Path:
    """Return the folder of `model-settings.json`, the base folder of prompts, weights and manifests. Core 2 mounts it
    read-only."""
    source = getattr(model_settings, "_source", None)
    if source:
        return Path(source).resolve().parent
    uri = model_settings.parameters.uri if model_settings.parameters else None
    return Path(uri).resolve() if uri else Path.cwd()


def data_folder() -> Path:
    """Return the base folder of relative store paths."""
    return Path(os.environ.get(DATA_VARIABLE) or Path.cwd()).resolve()
