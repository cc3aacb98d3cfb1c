"""Finds values in the user's messages by pattern, such as an issue number."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from .settings import FieldSettings

logger = logging.getLogger("mlserver.classifier")

BUDGET_SECONDS = 0.5
"""Time limit for one field of one request. A pattern that exceeds it finds nothing, and the log names its field."""


class FieldFinder:
    """Finds the values of fields.

    Any user writes the text, and Python's `re` can't be interrupted, so a pattern that backtracks would block the whole
    process. The `regex` library has a timeout, and lets other threads run during a search.

    Args:
        settings: the fields by name.
    """

    def __init__(self, settings: Mapping[str, FieldSettings]):
        self._settings = settings
        self._patterns: dict[str, list[Any]] = {
            name: [regex.compile(pattern) for pattern in field.pattern] for name, field in settings.items()
        }

    async def find(self, texts: Sequence[str], route: str) -> dict[str, str]:
        """Return the value of every field.

        Args:
            texts: the user's messages in the order of the search.
            route: name of the chosen route.

        Returns:
            The first value found for each field; "" if there is none, or if the route doesn't need the field.
        """
        return {name: await self._value(name, texts, route) for name in self._settings}

    async def _value(self, name: str, texts: Sequence[str], route: str) -> str:
        routes = self._settings[name].routes
        if routes and route not in routes:
            return ""
        try:
            return await asyncio.to_thread(_search, self._patterns[name], texts)
        except TimeoutError:
            logger.warning("the search for field '%s' exceeded its limit of %g s", name, BUDGET_SECONDS)
            return ""


def _search(patterns: Sequence[Any], texts: Sequence[str]) -> str:
    deadline = time.monotonic() + BUDGET_SECONDS
    for text in texts:
        for pattern in patterns:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            match = pattern.search(text, timeout=left, concurrent=True)
            value = "" if match is None else (match[1] if pattern.groups else None) or match[0]
            if value:
                return value
    return ""
