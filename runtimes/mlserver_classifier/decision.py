"""Chooses one route by probability."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlserver_chat import UpstreamFailed

_TOLERANCE = 0.01


@dataclass(frozen=True)
class Decision:
    """The chosen route, and the probabilities of all routes."""

    label: str
    """Name of the chosen route."""
    score: float
    """Its probability."""
    labels: Sequence[str]
    """Names of all routes, in the order of the settings."""
    scores: Sequence[float]
    """Probabilities of all routes in the same order. They sum to 1."""


def decide(
    labels: Sequence[str],
    probabilities: Sequence[float],
    threshold: float | None = None,
    default_route: str | None = None,
) -> Decision:
    """Choose the most probable route. Of equally probable ones, choose the default route, else the first.

    Args:
        labels: names of the routes.
        probabilities: one for each label, in the same order.
        threshold: if the highest probability is lower, the default route is chosen.
        default_route: name of the default route, if there is one.

    Raises:
        UpstreamFailed: the probabilities are not one number from 0 to 1 for each label, or don't sum to 1.
    """
    total = math.fsum(probabilities)
    if len(probabilities) != len(labels):
        raise UpstreamFailed(f"the scorer gave {len(probabilities)} scores for {len(labels)} routes")
    if not all(0 <= probability <= 1 + _TOLERANCE for probability in probabilities):
        raise UpstreamFailed("the scorer gave a score that is not a number from 0 to 1")
    if abs(total - 1) > _TOLERANCE:
        raise UpstreamFailed(f"the scorer gave scores that sum to {total:.3g}; expected 1")
    scores = [probability / total for probability in probabilities]
    best = max(scores)
    tied = [label for label, score in zip(labels, scores, strict=True) if score == best]
    label = default_route if default_route in tied else tied[0]
    if threshold is not None and default_route is not None and best < threshold:
        label = default_route
    assert label is not None
    return Decision(label, scores[list(labels).index(label)], labels, scores)


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Turn log-probabilities into probabilities that sum to 1. A common offset doesn't change the result.

    Raises:
        UpstreamFailed: a log-probability is NaN or infinity, or all are minus infinity.
    """
    highest = max(logprobs, default=-math.inf)
    if any(math.isnan(value) for value in logprobs) or math.isinf(highest):
        raise UpstreamFailed("the LLM gave log-probabilities that are not finite numbers")
    weights = [math.exp(value - highest) for value in logprobs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
