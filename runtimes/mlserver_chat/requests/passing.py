"""Passes the request to the backends and scorers that take it."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")


def passing_request(method: Callable[..., R]) -> Callable[..., R]:
    """Wrap a method of a backend or scorer so that it can be called with the keyword `request`.

    Returns:
        A callable that passes `request`, an `InferenceRequest`, on if the method has a parameter of that name.
    """
    if "request" in inspect.signature(method).parameters:
        return method

    def without_request(*arguments: Any, request: Any = None) -> R:
        return method(*arguments)

    return without_request
