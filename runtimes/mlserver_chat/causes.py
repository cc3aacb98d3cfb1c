"""Describes exceptions for the log without their texts, which may hold secrets or messages."""

import logging
import traceback
from http import HTTPStatus

from .errors import CallerLeft, ChatError

logger = logging.getLogger("mlserver.chat")

_MAX_EXCEPTIONS = 8
_MAX_FRAMES = 3
_OPERATORS = (HTTPStatus.FAILED_DEPENDENCY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INTERNAL_SERVER_ERROR)
"""Statuses of errors that an operator may have to look into."""


def log_causes(model: str, error: ChatError, level: int | None = None) -> None:
    """Log an error that has a cause.

    Args:
        model: name of the model that raised the error.
        error: the error.
        level: level of the line. Default: WARNING for the operator's errors, DEBUG for the caller's.
    """
    if level is None:
        is_operators = error.status in _OPERATORS and not isinstance(error, CallerLeft)
        level = logging.WARNING if is_operators else logging.DEBUG
    if _cause_of(error) is not None:
        logger.log(level, "model '%s': %s", model, cause_chain(error))


def cause_chain(error: BaseException) -> str:
    """Describe an exception and its causes by their types and the lines that raised them.

    Returns:
        The exception first, the root cause last: `NotReachable at a.py:5 < b.py:9, from OSError at c.py:7`.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain and len(chain) < _MAX_EXCEPTIONS:
        chain.append(cause)
        cause = _cause_of(cause)
    return ", from ".join(map(_described, chain))


def _cause_of(error: BaseException) -> BaseException | None:
    """Return the exception that led to `error`, as a Python traceback would show it."""
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _described(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    places = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}" if places else type(error).__name__
