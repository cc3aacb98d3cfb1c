"""The choice of a route by probability."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver_chat import UpstreamFailed
from mlserver_classifier.decision import decide, softmax

AB = ["a", "b"]


@pytest.mark.parametrize(
    ("probabilities", "threshold", "default", "label", "score"),
    [
        ([0.8, 0.2], None, None, "a", 0.8),
        ([0.8, 0.2], None, "b", "a", 0.8),
        ([0.8, 0.2], 0.8, "b", "a", 0.8),
        ([0.8, 0.2], 0.9, "b", "b", 0.2),
        ([0.5, 0.5], None, None, "a", 0.5),
        ([0.5, 0.5], None, "b", "b", 0.5),
        ([0.0, 1.0], 1.0, "a", "b", 1.0),
    ],
)
def test_the_best_route_is_chosen_except_below_the_threshold_or_in_a_tie(
    probabilities: list[float], threshold: float | None, default: str | None, label: str, score: float
) -> None:
    decision = decide(AB, probabilities, threshold, default)
    assert (decision.label, decision.score) == (label, pytest.approx(score))


@pytest.mark.parametrize(
    "probabilities", [[1.0], [0.5, 0.3, 0.2], [0.5, math.nan], [math.inf, 0.0], [1.5, -0.5], [0.2, 0.2], []]
)
def test_scores_that_are_no_distribution_are_an_upstream_failure(probabilities: list[float]) -> None:
    with pytest.raises(UpstreamFailed, match="the scorer gave"):
        decide(AB, probabilities)


@given(st.lists(st.floats(min_value=-1e4, max_value=0), min_size=1, max_size=20))
def test_scores_sum_to_one_and_one_route_is_chosen(logprobs: list[float]) -> None:
    labels = [f"r{i}" for i in range(len(logprobs))]
    decision = decide(labels, softmax(logprobs), threshold=0.9, default_route="r0")
    assert math.isclose(math.fsum(decision.scores), 1.0, abs_tol=1e-9)
    assert decision.score == decision.scores[labels.index(decision.label)]
    assert decision.label == "r0" or decision.score == max(decision.scores) >= 0.9


def test_softmax_accepts_any_magnitude() -> None:
    assert softmax([-1e9, -1e9 - math.log(3)]) == pytest.approx([0.75, 0.25])
    assert softmax([0.0, -math.inf]) == [1.0, 0.0]


@pytest.mark.parametrize("logprobs", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_softmax_refuses_nan_and_infinity(logprobs: list[float]) -> None:
    with pytest.raises(UpstreamFailed, match="not finite numbers"):
        softmax(logprobs)
