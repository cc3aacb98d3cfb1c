"""Checks `settings.json`, the settings of the server, whose unknown keys MLServer ignores silently."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from mlserver.settings import CORSSettings, Settings
from pydantic import ValidationError

from .findings import Finding, unknown_key, warning
from .jsonfiles import read_object, wrong_values

FILE_NAME = "settings.json"


def check_server_settings(folder: Path) -> tuple[Settings | None, list[Finding]]:
    """Check the `settings.json` of a model repository, or its absence.

    Returns:
        The settings that MLServer would use, None if it would reject them; and the findings.
    """
    path = folder / FILE_NAME
    content: dict[str, Any] | None = {}
    findings: list[Finding] = []
    if os.path.lexists(path):
        content, findings = read_object(path)
    if content is None:
        return None, findings
    findings += _unknown(path, "", content, {*Settings.model_fields, *Settings.__private_attributes__})
    cors = content.get("cors_settings")
    if isinstance(cors, dict):
        findings += _unknown(path, "cors_settings", cast(dict[str, Any], cors), set(CORSSettings.model_fields))
    try:
        settings = Settings.model_validate(content)
    except ValidationError as failure:
        return None, findings + wrong_values(path, failure)
    if settings.debug:
        sentence = "'debug' is on, which is the default; an error 500 shows its traceback to the caller"
        findings.append(warning(path, "debug", sentence))
    return settings, findings


def _unknown(path: Path, prefix: str, content: dict[str, Any], known: set[str]) -> Iterator[Finding]:
    for name in content:
        if name not in known:
            yield unknown_key(path, prefix, name, known)
