"""Describes exceptions for the log without their texts, which may hold secrets or messages."""

import traceback

_MAX_EXCEPTIONS = 8
_MAX_FRAMES = 3


def cause_chain(error: BaseException) -> str:
    """Describe an exception and its causes by their types and the lines that raised them.

    Returns:
        The exception first, the root cause last: `NotReachable at a.py:5 < b.py:9, from OSError at c.py:7`.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain and len(chain) < _MAX_EXCEPTIONS:
        chain.append(cause)
        cause = cause_of(cause)
    return ", from ".join(map(_described, chain))


def cause_of(error: BaseException) -> BaseException | None:
    """Return the exception that led to `error`, as a Python traceback would show it."""
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _described(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    places = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}" if places else type(error).__name__
