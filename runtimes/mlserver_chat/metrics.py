"""Metrics of the suite, on MLServer's own metrics endpoint.

Each is made on first use: MLServer prepares prometheus for its worker processes after the imports.
"""

import functools
import os

from prometheus_client import Counter, Gauge

_per_model: list[Gauge] = []


def per_model(gauge: Gauge) -> Gauge:
    """`gauge` itself, whose one label is the name of a model: a model that is unloaded takes its value along, so that
    no alert goes on about it."""
    _per_model.append(gauge)
    return gauge


def forget_model(model_name: str) -> None:
    """Remove what the gauges say about a model. Of worker processes prometheus can't remove anything."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        for gauge in _per_model:
            gauge.remove(model_name)


@functools.cache
def _errors() -> Counter:
    return Counter(
        "mlserver_llm_errors",
        "Requests that a model answered with an error, by the HTTP status that stands for it",
        ["model_name", "status"],
    )


def count_error(model_name: str, status: int) -> None:
    """Count a request that a model answered with an error, over whatever protocol."""
    _errors().labels(model_name, status).inc()
