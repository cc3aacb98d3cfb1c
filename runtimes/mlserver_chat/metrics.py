"""Metrics of the suite, on MLServer's metrics endpoint.

Each metric is created on first use, because MLServer prepares prometheus-client for worker processes after the imports.
"""

import functools
import os

from prometheus_client import Counter, Gauge

_per_model: list[Gauge] = []


def per_model(gauge: Gauge) -> Gauge:
    """Register a gauge whose only label is the model's name.

    Unloading a model removes its value, so that no alert continues for it.

    Returns:
        The gauge.
    """
    _per_model.append(gauge)
    return gauge


def forget_model(model_name: str) -> None:
    """Remove a model's values from all gauges. With worker processes, prometheus-client can't remove values."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        for gauge in _per_model:
            gauge.remove(model_name)


@functools.cache
def _errors() -> Counter:
    return Counter(
        "mlserver_llm_errors",
        "Requests that a model answered with an error, by HTTP status",
        ["model_name", "status"],
    )


def count_error(model_name: str, status: int) -> None:
    """Count a request that a model answered with an error over any protocol."""
    _errors().labels(model_name, status).inc()
