"""Checks the keys of `model-settings.json` that MLServer ignores or Core 2 drops."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from mlserver.settings import ModelParameters, ModelSettings

from .findings import Finding, unknown_key, warning

_KNOWN = (frozenset(ModelSettings.model_fields) - {"implementation_"}) | {"implementation"}
_KNOWN_PARAMETERS = frozenset(ModelParameters.model_fields)
_KNOWN_TENSOR_KEYS = frozenset(("name", "datatype", "shape", "parameters"))

# Core 2's agent rewrites model-settings.json with these keys alone.
_KEPT = frozenset(
    ("name", "inputs", "outputs", "platform", "versions", "parallel_workers", "implementation", "parameters")
)
_KEPT_PARAMETERS = frozenset(("uri", "version", "format", "content_type", "extra", "environment_tarball"))
_KEPT_TENSOR_KEYS = frozenset(("name", "datatype", "shape"))

_SECRET_KEY = re.compile(
    r"(?i)(^|[_-])(api[_-]?key|password|passwd|secret|authorization|(access|auth|ad|api|hf)[_-]token)$|^token$"
)
_URL_PASSWORD = re.compile(r"^[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)
_REFERENCE = ("env:", "file:")


def check_keys(path: Path, content: Mapping[str, Any]) -> Iterator[Finding]:
    """Find keys that MLServer ignores (errors) and keys that Core 2 drops (warnings).

    MLServer accepts any key under `parameters`, so there only a key that resembles a known one is an error.
    """
    yield from _check_level(path, "", content, _KNOWN, _KEPT)
    parameters = content.get("parameters")
    if isinstance(parameters, dict):
        yield from _check_level(
            path, "parameters", cast(dict[str, Any], parameters), _KNOWN_PARAMETERS, _KEPT_PARAMETERS
        )
    for kind in ("inputs", "outputs"):
        tensors = content.get(kind)
        for index, tensor in enumerate(cast(list[Any], tensors) if isinstance(tensors, list) else []):
            if isinstance(tensor, dict):
                prefix = f"{kind}.{index}"
                yield from _check_level(
                    path, prefix, cast(dict[str, Any], tensor), _KNOWN_TENSOR_KEYS, _KEPT_TENSOR_KEYS
                )


def _check_level(
    path: Path, prefix: str, content: Mapping[str, Any], known: frozenset[str], kept: frozenset[str]
) -> Iterator[Finding]:
    for name in content:
        key = f"{prefix}.{name}" if prefix else name
        if name not in known and (prefix != "parameters" or difflib.get_close_matches(name, known)):
            yield unknown_key(path, prefix, name, known)
        elif name not in kept:
            yield warning(path, key, f"Core 2 drops '{key}'; it keeps parameters.extra and few other keys")


def check_secrets(path: Path, content: object, key: str = "") -> Iterator[Finding]:
    """Find plain secrets, by the name of their key or as a URL with a password."""
    if isinstance(content, dict):
        for name, value in cast(dict[str, Any], content).items():
            inner = f"{key}.{name}" if key else name
            if isinstance(value, str) and _SECRET_KEY.search(name) and value and not value.startswith(_REFERENCE):
                yield warning(path, inner, f"'{inner}' contains a secret; refer to it by 'env:NAME' or 'file:/path'")
            else:
                yield from check_secrets(path, value, inner)
    elif isinstance(content, list):
        for index, value in enumerate(cast(list[Any], content)):
            yield from check_secrets(path, value, f"{key}.{index}")
    elif isinstance(content, str) and _URL_PASSWORD.match(content):
        yield warning(path, key, f"'{key}' is a URL with a password; refer to it by 'env:NAME' or 'file:/path'")
