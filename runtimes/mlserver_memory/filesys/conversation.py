"""What is done with the records of one conversation, whose lock the caller holds."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlserver_chat import StoredMessage, Window

from .durability import Durability
from .keys import KeyCache
from .records import Header, Record, RecordFile, header_line


@dataclass(frozen=True)
class Append:
    """What is appended."""

    digest: str
    """The append's key."""
    messages: Sequence[str]
    """Elements of the `history` tensor."""
    provenance: Mapping[str, str]
    """Of all messages."""
    created: float | None
    """Seconds since the epoch, None for now."""


def newest_window(records: RecordFile, size: int, end: int | None = None) -> Window:
    """The newest `size` messages of the records before offset `end` (default: all)."""
    batches: list[list[StoredMessage]] = []
    missing, system = size, None
    for record in records.newest_first(end):
        system = record.system if system is None else system
        batches.append(record.stored()[-missing:])
        missing -= len(batches[-1])
        if missing <= 0:
            break
    messages = [message for batch in reversed(batches) for message in batch]
    pinned = _system_message(records, system or 0)
    if pinned is not None and messages and pinned.sequence < messages[0].sequence:
        return Window(messages, pinned)
    return Window(messages)


def _system_message(records: RecordFile, offset: int) -> StoredMessage | None:
    record = records.at(offset) if offset else None
    return None if record is None else record.system_message()


def append(
    path: Path,
    records: RecordFile,
    names: tuple[str, str],
    new: Append,
    size: int,
    durability: Durability,
    keys: KeyCache,
) -> Window:
    """Append one record, once a key, and return the window that ends at it.

    Args:
        path: the conversation's file.
        records: what it holds.
        names: namespace and `memory_id`.
        new: what is appended.
        size: of the window.
        durability: makes what was written last.
        keys: finds the records of earlier appends.
    """
    is_new = records.size == 0
    if is_new:
        records.append(header_line(Header(str(uuid.uuid4()), *names)))
    offset = keys.find(path.stem, records, new.digest)
    replayed = None if offset is None else records.at(offset)
    if replayed is not None and replayed.digest == new.digest:
        # The process that wrote it may have been killed before it reached the disk.
        durability.written(path, records, is_new)
        return newest_window(records, size, replayed.end)
    records.append(_next(records, new).line())
    durability.written(path, records, is_new)
    return newest_window(records, size)


def _next(records: RecordFile, new: Append) -> Record:
    newest = next(records.newest_first(), None)
    record = Record(
        first=newest.last + 1 if newest else 1,
        messages=tuple(new.messages),
        created=time.time() if new.created is None else new.created,
        digest=new.digest,
        total=(newest.total if newest else 0) + len(new.messages),
        system=newest.system if newest else 0,
        provenance=new.provenance,
    )
    return record._replace(system=records.size) if record.system_message() is not None else record
