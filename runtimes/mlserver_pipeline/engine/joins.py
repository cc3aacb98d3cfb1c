"""Windowed joins of records, as Kafka Streams performs them for Core 2's dataflow engine.

Only the timestamps of the records count, so tests need no clock.
"""

from collections.abc import Callable

from ..manifests.manifest import JoinType
from .messages import Record, StepMessage, merge

ANY_WINDOW_MS = 1
"""An `any` join merges two records that are at most this many milliseconds apart."""

Combine = Callable[[StepMessage | None, StepMessage | None], StepMessage]


def keep_left(left: StepMessage | None, right: StepMessage | None) -> StepMessage:
    """Combine data and trigger: the trigger lets the data through and adds nothing to it."""
    assert left is not None, "an inner join has both sides"
    return left


class Join:
    """A join of two streams of one request.

    - inner: emits each pair of records that are at most `window` milliseconds apart
    - any: emits every record at once, merged with a partner that came within 1 ms
    - outer: emits each pair, and holds a record without a partner until a later record shows that its window has passed

    Args:
        kind: the kind of join.
        window: in milliseconds.
        combine: merges the messages of a pair.
    """

    def __init__(self, kind: JoinType, window: int, combine: Combine = merge):
        self._kind = kind
        self._window = ANY_WINDOW_MS if kind == "any" else window
        self._combine = combine
        self._seen: tuple[list[Record], list[Record]] = ([], [])
        self._held: list[tuple[int, Record]] = []
        self._stream_time = 0

    def arrive(self, side: int, record: Record) -> list[Record]:
        """Add a record on `side` (0 left, 1 right), and return the records that the join emits for it."""
        self._stream_time = max(self._stream_time, record.time)
        emitted = self._expire()
        self._seen[side].append(record)
        partners = [other for other in self._seen[1 - side] if abs(other.time - record.time) <= self._window]
        for partner in partners:
            self._held = [entry for entry in self._held if entry[1] is not partner]
            emitted.append(self._pair(side, record, partner))
        if not partners and self._kind != "inner":
            if self._kind == "outer" and record.time + self._window >= self._stream_time:
                self._held.append((side, record))
            else:
                emitted.append(self._pair(side, record, None))
        return emitted

    def release(self) -> list[Record]:
        """Emit the held records, as if later traffic had shown that their windows have passed."""
        held, self._held = self._held, []
        return [self._pair(side, record, None) for side, record in held]

    def _expire(self) -> list[Record]:
        oldest_open = self._stream_time - self._window
        passed = [entry for entry in self._held if entry[1].time < oldest_open]
        self._held = [entry for entry in self._held if entry[1].time >= oldest_open]
        return [self._pair(side, record, None) for side, record in passed]

    def _pair(self, side: int, record: Record, partner: Record | None) -> Record:
        """Join two records. The result has the later time, and the headers of the record that arrived last."""
        other = partner.message if partner else None
        left, right = (record.message, other) if side == 0 else (other, record.message)
        time = max(record.time, partner.time) if partner else record.time
        return Record(self._combine(left, right), record.headers, time)


class Fold:
    """Joins any number of sources pairwise from the left: `((a ∘ b) ∘ c) ∘ …`."""

    def __init__(self, kind: JoinType, window: int, sources: int):
        self._joins = [Join(kind, window) for _ in range(sources - 1)]

    def arrive(self, source: int, record: Record) -> list[Record]:
        """Add a record from source number `source`, and return the records that are emitted for it."""
        if not self._joins:
            return [record]
        first = max(source - 1, 0)
        emitted = self._joins[first].arrive(0 if source == 0 else 1, record)
        return self._through(first + 1, emitted)

    def release(self) -> list[Record]:
        """Emit the held records of the first join that has any. They may find partners in the joins behind it."""
        for index, join in enumerate(self._joins):
            emitted = self._through(index + 1, join.release())
            if emitted:
                return emitted
        return []

    def _through(self, first: int, records: list[Record]) -> list[Record]:
        for join in self._joins[first:]:
            records = [result for record in records for result in join.arrive(0, record)]
        return records
