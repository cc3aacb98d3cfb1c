"""A user's own backend or scorer: any dotted name in settings, `"backend": "my_module.MyBackend"`."""

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
    """The backend of class `dotted`, built with `config.model_settings` as keyword arguments.

    The module is looked for beside `model-settings.json` first, then among the installed ones.

    Raises:
        SettingsError: no such module or class, or the class refuses the settings.
    """
    return _build("backend", dotted, folder, "config.model_settings", model_settings)


def import_scorer(dotted: str, folder: Path, scorer_settings: Mapping[str, Any]) -> Scorer:
    """The scorer of class `dotted`, found like a backend and built with `scorer_settings` as keyword arguments.

    Raises:
        SettingsError: no such module or class, or the class refuses the settings.
    """
    return _build("scorer", dotted, folder, "scorer_settings", scorer_settings)


def find_class(kind: str, dotted: str, folder: Path) -> Any:
    """The class `dotted` of the user's; `kind` is what it is called in the settings.

    Raises:
        SettingsError: not a dotted name, or no such module or class.
    """
    module_name, _, class_name = dotted.rpartition(".")
    if not module_name:
        raise SettingsError(f"{kind} '{dotted}' is not a dotted name; expected 'module.Class'")
    try:
        return getattr(_import(module_name, folder), class_name)
    except Exception as error:  # a module of the user's may raise anything while it is imported
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
    # Two models may each have a `my_module.py`: the folder is part of the name under which Python knows it.
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
