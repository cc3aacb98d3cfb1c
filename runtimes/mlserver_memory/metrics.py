"""Metrics of memory models, on MLServer's own metrics endpoint."""

import functools
from collections.abc import Generator
from contextlib import contextmanager

from prometheus_client import Gauge

from mlserver_chat import NotReachable
from mlserver_chat.metrics import per_model


@functools.cache
def _store_reachable() -> Gauge:
    """Made on first use: MLServer prepares prometheus for its worker processes after the imports."""
    return per_model(
        Gauge(
            "mlserver_memory_store_reachable",
            "1 when the memory store answered the last request, 0 when it could not be reached",
            ["model_name"],
            multiprocess_mode="livemin",
        )
    )


@contextmanager
def watching_store(model_name: str) -> Generator[None]:
    """Notes whether the store could be reached in the block."""
    gauge = _store_reachable().labels(model_name)
    try:
        yield
    except NotReachable:
        gauge.set(0)
        raise
    gauge.set(1)
