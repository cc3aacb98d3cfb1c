"""Rewriting a conversation's file without what is to go."""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..retention import REPLAY_SECONDS
from .records import Header, Record, RecordFile, header_line


def is_due(records: RecordFile, older_than: float | None = None, max_messages: int | None = None) -> bool:
    """Whether there may be something to remove: told by both ends of the file, so that a conversation that stays as it
    is isn't read through again and again."""
    newest = next(records.newest_first(), None)
    if newest is None or not newest.total or (older_than is None and max_messages is None):
        return True
    if max_messages is not None and newest.total > max_messages:
        return True
    # A record without a key is the pinned system message of an earlier pruning, which stays while it is the newest.
    removable = (
        each for each in records.oldest_first() if each.messages and (each.digest or each.offset != newest.system)
    )
    oldest = next(removable, newest)
    return older_than is not None and oldest.created < older_than


def pruned(
    records: RecordFile, older_than: float | None = None, max_messages: int | None = None
) -> tuple[int, list[Record]]:
    """How many messages go, and the records that are left; without limits, all go."""
    old = list(records.oldest_first())
    if not old:
        return 0, []
    everything = older_than is None and max_messages is None
    cut = old[-1].last if everything else 0
    if max_messages is not None and old[-1].total > max_messages:
        cut = old[-1].last - max_messages
    system = next((message for record in reversed(old) if (message := record.system_message())), None)
    left: list[Record] = []
    for record in old:
        is_old = older_than is not None and record.created < older_than
        left.append(_without(record, record.last if is_old else cut))
    first = next((record.first for record in left if record.messages), None)
    if first is None:
        # Nothing is left: sequences begin anew, and a replay of what was removed finds nothing.
        left = [record._replace(first=1) for record in left]
    elif system is not None and system.sequence < first:
        pin = next(record for record in old if record.first <= system.sequence <= record.last)
        # In its place among the keys of what went, whose replays must not see what came after them.
        place = next(index for index, record in enumerate(left) if record.last >= system.sequence)
        left.insert(place, pin._replace(first=system.sequence, messages=(system.record,), digest=""))
    removed = sum(len(record.messages) for record in old) - sum(len(record.messages) for record in left)
    forget = time.time() - REPLAY_SECONDS
    return removed, [record for record in left if record.messages or record.created > forget]


def _without(record: Record, cut: int) -> Record:
    """The record without the messages up to sequence `cut`."""
    gone = min(max(cut + 1 - record.first, 0), len(record.messages))
    return record._replace(first=record.first + gone, messages=record.messages[gone:])


def rewritten(header: Header, records: Sequence[Record]) -> bytes:
    """The whole file, as a new generation."""
    return b"".join(_lines(header, records))


def _lines(header: Header, records: Sequence[Record]) -> Iterator[bytes]:
    line = header_line(replace(header, generation=str(uuid.uuid4())))
    offset = total = system = 0
    yield line
    for record in records:
        offset += len(line)
        total += len(record.messages)
        system = offset if record.system_message() is not None else system
        line = record._replace(total=total, system=system).line()
        yield line
