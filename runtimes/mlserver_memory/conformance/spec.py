"""The list of all specs."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mlserver_chat import MemoryStore

from . import append, conversations, delete, prune, read, scope, stats, window


@dataclass(frozen=True)
class Spec:
    """One promise of a store; its name is the sentence."""

    verb: str
    name: str
    run: Callable[[MemoryStore], Awaitable[None]]
    """Raises AssertionError when the store breaks the promise."""

    def __str__(self) -> str:
        return f"{self.verb}: {self.name.replace('_', ' ')}"


_VERBS = (append, window, read, conversations, delete, prune, stats, scope)

SPECS = tuple(
    Spec(module.__name__.rpartition(".")[2], name, function)
    for module in _VERBS
    for name, function in vars(module).items()
    if inspect.iscoroutinefunction(function) and function.__module__ == module.__name__
)
"""All of them, by verb."""
