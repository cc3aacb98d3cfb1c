"""Imports a user's own backend or scorer, which settings name: `"backend": "my_module.MyBackend"`."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import SettingsError
from ..requests.identity import hashed
from ..seams import ChatBackend, Scorer


def import_backend(dotted: str, folder: Path, model_settings: Mapping[str, Any]) -> ChatBackend:
    """Build a backend of the user's.

    Args:
        dotted: module and class. A module in `folder` takes precedence over an installed one.
        folder: the folder of `model-settings.json`.
        model_settings: `config.model_settings`, the class's keyword arguments.

    Raises:
        SettingsError: the module or class is missing or can't be imported, or the class refuses the arguments.
    """
    return _build("backend", dotted, folder, "config.model_settings", model_settings)


def import_scorer(dotted: str, folder: Path, scorer_settings: Mapping[str, Any]) -> Scorer:
    """Build a scorer of the user's.

    Args:
        dotted: module and class. A module in `folder` takes precedence over an installed one.
        folder: the folder of `model-settings.json`.
        scorer_settings: the class's keyword arguments.

    Raises:
        SettingsError: the module or class is missing or can't be imported, or the class refuses the arguments.
    """
    return _build("scorer", dotted, folder, "scorer_settings", scorer_settings)


def find_class(kind: str, dotted: str, folder: Path) -> Any:
    """Import a class of the user's.

    Args:
        kind: the key that names the class in the settings, for error sentences.
        dotted: module and class.
        folder: the folder of `model-settings.json`.

    Raises:
        SettingsError: `dotted` is not a dotted name, or the module or class is missing or can't be imported.
    """
    module_name, _, class_name = dotted.rpartition(".")
    if not module_name:
        raise SettingsError(f"{kind} '{dotted}' is not a dotted name; expected 'module.Class'")
    try:
        return getattr(_import(module_name, folder), class_name)
    except Exception as error:  # a user's module may raise anything
        speaks_of_code = isinstance(error, ImportError | SyntaxError | AttributeError | NameError)
        why = f"{type(error).__name__}: {error}" if speaks_of_code else type(error).__name__
        raise SettingsError(f"{kind} '{dotted}' can't be imported: {why}") from error


def _build(kind: str, dotted: str, folder: Path, key: str, settings: Mapping[str, Any]) -> Any:
    found = find_class(kind, dotted, folder)
    try:
        return found(**settings)
    except TypeError as error:
        raise SettingsError(f"{kind} '{dotted}' refuses '{key}': {error}") from error


def _import(name: str, folder: Path) -> ModuleType:
    path = folder / f"{name.replace('.', '/')}.py"
    if not path.is_file():
        return importlib.import_module(name)
    # Two models may each have a `my_module.py`, so the name in `sys.modules` depends on the folder.
    unique = f"{name}_{hashed(str(path))[:12]}"
    if unique not in sys.modules:
        spec = importlib.util.spec_from_file_location(unique, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"no loader for {path.name}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[unique] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[unique]
            raise
    return sys.modules[unique]
