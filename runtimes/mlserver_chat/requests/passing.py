"""Hands the request to backends and scorers that want it."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")


def passing_request(method: Callable[..., R]) -> Callable[..., R]:
    """`method` as a callable that takes the keyword `request`, the `InferenceRequest` that is being answered.

    A method of a seam may name the keyword `request`. One that doesn't is called without it.
    """
    if "request" in inspect.signature(method).parameters:
        return method

    def without_request(*arguments: Any, request: Any = None) -> R:
        return method(*arguments)

    return without_request
