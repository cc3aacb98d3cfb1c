"""Values found by pattern in the user's messages, such as an issue number."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from .settings import FieldSettings

logger = logging.getLogger("mlserver.classifier")

BUDGET_SECONDS = 0.5
"""Longest search for one field of one request. A pattern that backtracks without end finds nothing, and is logged."""


class FieldFinder:
    """Finds the fields of `settings`.

    The patterns come from the operator and the text from anyone, and Python's own `re` can't be interrupted: one
    pattern that backtracks would hold the whole process. `regex` takes a timeout and lets other threads run meanwhile.
    """

    def __init__(self, settings: Mapping[str, FieldSettings]):
        self._settings = settings
        self._patterns: dict[str, list[Any]] = {
            name: [regex.compile(pattern) for pattern in field.pattern] for name, field in settings.items()
        }

    async def find(self, texts: Sequence[str], route: str) -> dict[str, str]:
        """Every field's value: that of the first of `texts` that has one; "" if none has, or `route` needs none."""
        return {name: await self._value(name, texts, route) for name in self._settings}

    async def _value(self, name: str, texts: Sequence[str], route: str) -> str:
        routes = self._settings[name].routes
        if routes and route not in routes:
            return ""
        try:
            return await asyncio.to_thread(_search, self._patterns[name], texts)
        except TimeoutError:
            logger.warning("the pattern of field '%s' took over %g s on one request", name, BUDGET_SECONDS)
            return ""


def _search(patterns: Sequence[Any], texts: Sequence[str]) -> str:
    deadline = time.monotonic() + BUDGET_SECONDS
    for text in texts:
        for pattern in patterns:
            left = max(deadline - time.monotonic(), 0.001)
            match = pattern.search(text, timeout=left, concurrent=True)
            value = "" if match is None else (match[1] if pattern.groups else None) or match[0]
            if value:
                return value
    return ""
