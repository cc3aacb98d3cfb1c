"""A user's own backend: any dotted name in settings, `"backend": "my_module.MyBackend"`."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import SettingsError
from .identity import hashed
from .seams import ChatBackend


def import_backend(dotted: str, folder: Path, model_settings: Mapping[str, Any]) -> ChatBackend:
    """The backend of class `dotted`, built with `config.model_settings` as keyword arguments.

    The module is looked for beside `model-settings.json` first, then among the installed ones.

    Raises:
        SettingsError: no such module or class, or the class refuses the settings.
    """
    module_name, _, class_name = dotted.rpartition(".")
    try:
        backend_class = getattr(_import(module_name, folder), class_name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"backend '{dotted}' can't be imported: {error}") from None
    try:
        return backend_class(**model_settings)
    except TypeError as error:
        raise SettingsError(f"backend '{dotted}' refuses 'config.model_settings': {error}") from None


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
        spec.loader.exec_module(module)
    return sys.modules[unique]
