"""Joins of records with given timestamps."""

import pytest

from mlserver_pipeline.engine.joins import Fold, Join
from mlserver_pipeline.engine.messages import Record
from mlserver_pipeline.manifests.manifest import JoinType
from pipeline_lab import ints, message


def record(name: str, time: int) -> Record:
    return Record(message(ints(name, 0)), {"x-from": name}, time)


def names(records: list[Record]) -> list[str]:
    return ["".join(tensor.name for tensor in each.message.tensors) for each in records]


# The output of each join if the left record `a` arrives at 0 and the right record `b` later (window 100).
PAIRS: list[tuple[JoinType, int, list[str], list[str]]] = [
    ("inner", 0, [], ["ab"]),
    ("inner", 100, [], ["ab"]),
    ("inner", 101, [], []),
    ("any", 0, ["a"], ["ab"]),
    ("any", 1, ["a"], ["ab"]),
    ("any", 2, ["a"], ["b"]),
    ("outer", 0, [], ["ab"]),
    ("outer", 100, [], ["ab"]),
    ("outer", 101, [], ["a"]),
]


@pytest.mark.parametrize(("kind", "later", "first", "second"), PAIRS)
def test_join_of_two_sources_in_both_orders(kind: JoinType, later: int, first: list[str], second: list[str]) -> None:
    join = Join(kind, 100)
    assert names(join.arrive(0, record("a", 0))) == first
    assert names(join.arrive(1, record("b", later))) == second
    mirrored = Join(kind, 100)
    swap = {"a": "b", "b": "a", "ab": "ab"}
    assert names(mirrored.arrive(1, record("b", 0))) == [swap[name] for name in first]
    assert names(mirrored.arrive(0, record("a", later))) == [swap[name] for name in second]


def test_held_record_is_emitted_when_a_later_record_shows_that_its_window_has_passed() -> None:
    join = Join("outer", 100)
    assert join.arrive(0, record("a", 0)) == []
    assert join.arrive(0, record("b", 100)) == []
    assert names(join.arrive(0, record("c", 101))) == ["a"]
    assert names(join.release()) == ["b", "c"]
    assert join.release() == []


def test_record_behind_its_own_window_is_emitted_at_once() -> None:
    join = Join("outer", 100)
    join.arrive(0, record("a", 500))
    assert names(join.arrive(1, record("b", 399))) == ["b"]


def test_pair_has_the_later_time_and_the_headers_of_the_last_arrival() -> None:
    join = Join("inner", 100)
    join.arrive(1, record("b", 70))
    (pair,) = join.arrive(0, record("a", 20))
    assert (pair.time, pair.headers) == (70, {"x-from": "a"})


def test_every_pair_within_the_window_is_emitted() -> None:
    join = Join("inner", 100)
    for name in "ab":
        join.arrive(0, record(name, 0))
    assert names(join.arrive(1, record("x", 0))) == ["ax", "bx"]
    assert names(join.arrive(1, record("y", 0))) == ["ay", "by"]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_three_sources_join_in_declared_order_for_any_arrival(order: tuple[int, ...]) -> None:
    for kind in ("inner", "outer"):
        fold = Fold(kind, 100, 3)
        emitted = [result for source in order for result in fold.arrive(source, record("abc"[source], source))]
        assert names(emitted) == ["abc"]
    either = Fold("any", 100, 3)
    emitted = [names(either.arrive(source, record("abc"[source], 10 * at))) for at, source in enumerate(order)]
    assert emitted == [["abc"[source]] for source in order]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_join_of_three_sources_with_one_missing(missing: int) -> None:
    here = [source for source in range(3) if source != missing]
    inner, outer, either = Fold("inner", 100, 3), Fold("outer", 100, 3), Fold("any", 100, 3)
    for source in here:
        assert inner.arrive(source, record("abc"[source], 0)) == []
        outer.arrive(source, record("abc"[source], 0))
    assert inner.release() == []
    assert names(outer.release()) == ["".join("abc"[source] for source in here)]
    assert outer.release() == []
    emitted = [names(either.arrive(source, record("abc"[source], 10 * source))) for source in here]
    assert emitted == [["abc"[source]] for source in here]


def test_single_source_needs_no_partner() -> None:
    assert names(Fold("inner", 100, 1).arrive(0, record("a", 0))) == ["a"]
