"""Windowed joins of records, as Core 2's dataflow engine gets them from Kafka Streams.

Time is the records' own, so a test needs no clock.
"""

from collections.abc import Callable

from ..manifests.manifest import JoinType
from .messages import Record, StepMessage, merge

ANY_WINDOW_MS = 1
"""Two records less than this apart count as one for an `any` join."""

Combine = Callable[[StepMessage | None, StepMessage | None], StepMessage]


def keep_left(left: StepMessage | None, right: StepMessage | None) -> StepMessage:
    """What a trigger does: let the data through and be gone."""
    assert left is not None, "an inner join has both sides"
    return left


class Join:
    """A join of two streams of one request.

    inner: a result for each pair at most `window` apart. any: every record at once, merged with what came within 1 ms
    of it. outer: a result for each pair, and a record that found no partner is parked until a later one shows that its
    window has passed.
    """

    def __init__(self, kind: JoinType, window: int, combine: Combine = merge):
        self._kind = kind
        self._window = ANY_WINDOW_MS if kind == "any" else window
        self._combine = combine
        self._seen: tuple[list[Record], list[Record]] = ([], [])
        self._parked: list[tuple[int, Record]] = []
        self._stream_time = 0

    def arrive(self, side: int, record: Record) -> list[Record]:
        """What is emitted now that `record` has come on `side` (0 left, 1 right)."""
        self._stream_time = max(self._stream_time, record.time)
        emitted = self._expire()
        self._seen[side].append(record)
        partners = [other for other in self._seen[1 - side] if abs(other.time - record.time) <= self._window]
        for partner in partners:
            self._parked = [entry for entry in self._parked if entry[1] is not partner]
            emitted.append(self._pair(side, record, partner))
        if not partners and self._kind != "inner":
            if self._kind == "outer" and record.time + self._window >= self._stream_time:
                self._parked.append((side, record))
            else:
                emitted.append(self._pair(side, record, None))
        return emitted

    def release(self) -> list[Record]:
        """The parked records, as if later traffic had shown that their windows have passed."""
        parked, self._parked = self._parked, []
        return [self._pair(side, record, None) for side, record in parked]

    def _expire(self) -> list[Record]:
        oldest_open = self._stream_time - self._window
        passed = [entry for entry in self._parked if entry[1].time < oldest_open]
        self._parked = [entry for entry in self._parked if entry[1].time >= oldest_open]
        return [self._pair(side, record, None) for side, record in passed]

    def _pair(self, side: int, record: Record, partner: Record | None) -> Record:
        """The joined record: the later time, and the headers of the record that came last."""
        other = partner.message if partner else None
        left, right = (record.message, other) if side == 0 else (other, record.message)
        time = max(record.time, partner.time) if partner else record.time
        return Record(self._combine(left, right), record.headers, time)


class Fold:
    """Any number of sources joined from the left: `((a ∘ b) ∘ c) ∘ …`."""

    def __init__(self, kind: JoinType, window: int, sources: int):
        self._joins = [Join(kind, window) for _ in range(sources - 1)]

    def arrive(self, source: int, record: Record) -> list[Record]:
        """What is emitted now that `record` has come from source number `source`."""
        if not self._joins:
            return [record]
        first = max(source - 1, 0)
        emitted = self._joins[first].arrive(0 if source == 0 else 1, record)
        return self._through(first + 1, emitted)

    def release(self) -> list[Record]:
        """What comes out when parked records are let go, the first join's first: they may find partners further on."""
        for index, join in enumerate(self._joins):
            emitted = self._through(index + 1, join.release())
            if emitted:
                return emitted
        return []

    def _through(self, first: int, records: list[Record]) -> list[Record]:
        for join in self._joins[first:]:
            records = [result for record in records for result in join.arrive(0, record)]
        return records
