"""The file of one conversation: a line a record, a record an append.

    <CRC-32 of the rest, 8 hex digits> {"format": 1, "generation": …, "namespace": …, "memory_id": …}
    <CRC-32 of the rest, 8 hex digits> {"first": 1, "count": 1, "created": …, "digest": …, "system": 0}⇥{message}⇥…

The messages stand there as the `history` tensor holds them, each behind a tab, which JSON writes as \\t: a window gives
them out without parsing any.
A record is one append and therefore all there or not at all. A line without its end is the torn tail of a write that
was never acknowledged, unless its checksum proves that only the newline was damaged. A damaged line is skipped and
reported; whole records inside of it are found by their checksums. `system` is the offset of the record with the newest
system message, so that neither a window nor a pinned message needs more than the tail and one seek. A record without
messages remembers the key of an append whose messages were removed.
"""

import errno
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mlserver_chat import StoredMessage
from mlserver_chat.stores import SYSTEM_ROLES
from mlserver_chat.tensors import Json, dumps

_BLOCK = 16384
"""Bytes of the first step backwards; each further one doubles."""
_LARGEST_BLOCK = 2**20
_DECODER = json.JSONDecoder()
_DIGEST = b'"digest": "'
_CANDIDATES = 16
"""Places in a damaged line where a record is looked for."""
_LINE_START = re.compile(rb"[0-9a-f]{8} \{")
KEY_BYTES = 16
"""Bytes of a SHA-256 that tell keys apart."""


@dataclass(frozen=True)
class Header:
    """The first line of a conversation's file."""

    generation: str
    """Changes whenever the file is rewritten, so that offsets into the old one are known to be stale."""
    namespace: str
    memory_id: str


class Record(NamedTuple):
    """One append. Every window makes as many as it has turns, and a named tuple is made in a third of the time."""

    first: int
    """Sequence of its first message."""
    messages: tuple[str, ...]
    """The messages as elements of the `history` tensor."""
    created: float
    digest: str
    total: int
    """Messages of the conversation, these included."""
    system: int
    """Offset of the record with the newest system message up to this one, 0 for none."""
    provenance: Mapping[str, str] = MappingProxyType({})
    offset: int = 0
    """Where its line begins."""
    end: int = 0
    """Where its line ends, newline included."""

    @property
    def last(self) -> int:
        """Sequence of its last message; one less than `first` when its messages were removed."""
        return self.first + len(self.messages) - 1

    def stored(self) -> list[StoredMessage]:
        """Its messages."""
        return [
            StoredMessage(self.first + index, message, self.created, self.provenance)
            for index, message in enumerate(self.messages)
        ]

    def system_message(self) -> StoredMessage | None:
        """Its newest system message."""
        return next((message for message in reversed(self.stored()) if message.role in SYSTEM_ROLES), None)

    def line(self) -> bytes:
        """The record as it stands in the file."""
        data: dict[str, Json] = {
            "first": self.first,
            "count": self.total,
            "created": self.created,
            "digest": self.digest,
            "system": self.system,
        }
        if self.provenance:
            data["provenance"] = dict(self.provenance)
        return _line(data, self.messages)


def header_line(header: Header) -> bytes:
    """The header as it stands in the file."""
    return _line({"format": 1, **asdict(header)})


def _line(data: Mapping[str, Json], messages: Sequence[str] = ()) -> bytes:
    content = "\t".join([dumps(data), *messages]).encode("utf-8")
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _is_whole(line: bytes) -> bool:
    """Whether a line's checksum is right, whatever its last byte, the newline, has become."""
    return len(line) > 9 and line[:9] == b"%08x " % zlib.crc32(line[9:-1])


def _parse(line: bytes) -> tuple[dict[str, Any], list[str]]:
    """The object and the messages of a whole line."""
    data, *messages = line[9:-1].decode("utf-8").split("\t")
    return _DECODER.raw_decode(data)[0], messages


def _whole_lines(line: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole lines in a damaged one, with their places: a damaged newline joins two."""
    starts = [match.start() for match in islice(_LINE_START.finditer(line), _CANDIDATES)]
    while starts:
        start, *starts = starts
        # A message may hold the beginning of a line, so the next one isn't always the end of this one.
        end = next((end for end in (*starts, len(line)) if _is_whole(line[start:end])), None)
        if end is not None:
            yield start, line[start:end]
            starts = [each for each in starts if each >= end]


def is_file_at(file: int, path: Path) -> bool:
    """Whether the open `file` is the one at `path`: it may have been removed or replaced since."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


class RecordFile:
    """Reads and extends the open file of a conversation, whose lock the caller holds.

    Args:
        descriptor: the open file.
        report: called with the offset of every damaged line that is met and passed over.
    """

    def __init__(self, descriptor: int, report: Callable[[int], None]):
        self._file = descriptor
        self._report = report
        self.size = os.fstat(descriptor).st_size
        """Bytes up to the end of the last whole line."""
        self.torn = 0
        """Bytes behind it, left by a write that was cut short."""
        self.unended = False
        """Whether the newline of the last record is damaged."""
        self._find_end()

    def _find_end(self) -> None:
        whole, step = self.size, 1
        while whole > 0:
            start = max(whole - step, 0)
            newline = os.pread(self._file, whole - start, start).rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole, step = start, _BLOCK
        if whole < self.size and _is_whole(os.pread(self._file, self.size - whole, whole)):
            # Acknowledged: a write that was cut short lacks its last byte.
            self.unended = True
        else:
            self.torn, self.size = self.size - whole, whole

    def repair_end(self) -> None:
        """Remove the bytes of a write that was cut short, or write the last record's newline again."""
        if self.torn:
            os.ftruncate(self._file, self.size)
            self.torn = 0
        if self.unended:
            self._write(b"\n", self.size - 1)
            self.unended = False

    def identity(self) -> tuple[int, int, str]:
        """Tells this file and its content from another: device, inode and generation."""
        status, header = os.fstat(self._file), self.header()
        return status.st_dev, status.st_ino, header.generation if header else ""

    def header(self) -> Header | None:
        """The header; None when the file is new or its first line is damaged."""
        if not self.size:
            return None
        start, line = next(self._whole(self._line_at(0), 0), (0, None))
        if line is None or start > 0:
            return None
        data, _ = _parse(line)
        return Header(data["generation"], data["namespace"], data["memory_id"])

    def at(self, offset: int) -> Record | None:
        """The record whose line begins at `offset`; None when it is damaged."""
        return next(
            (record for record in self._records(self._line_at(offset), offset) if record.offset == offset), None
        )

    def newest_first(self, end: int | None = None) -> Iterator[Record]:
        """The records before offset `end` (default: all), newest first."""
        for offset, line in self._lines_back(self.size if end is None else end):
            yield from reversed(list(self._records(line, offset)))

    def oldest_first(self, start: int = 0) -> Iterator[Record]:
        """The records from offset `start` of a line on."""
        for offset, line in self._lines_on(start):
            yield from self._records(line, offset)

    def keys(self, start: int) -> Iterator[tuple[bytes, int]]:
        """The first `KEY_BYTES` of the key of each record from offset `start` of a line on, and its offset.

        Takes a fifth of the time of reading the records.
        """
        for offset, line in self._lines_on(start):
            for begin, whole in self._whole(line, offset):
                # The messages come behind the key.
                place = whole.find(_DIGEST) + len(_DIGEST)
                if place > len(_DIGEST) and whole[place : place + 1] != b'"':
                    yield bytes.fromhex(whole[place : place + 2 * KEY_BYTES].decode("ascii")), begin

    def offset_after(self, sequence: int) -> int:
        """Where to start reading for messages whose sequence is over `sequence`: bisected, not scanned."""
        low, high = 0, self.size
        while high - low > _BLOCK:
            middle = (low + high) // 2
            record = next(self.newest_first(self._line_end(middle)), None)
            if record is None or record.last <= sequence:
                low = self._line_end(middle)
            else:
                high = middle
        return low

    def append(self, data: bytes) -> int:
        """Write `data` at the end; returns its offset. A write that fails leaves nothing behind.

        Raises:
            OSError: the disk is full or fails.
        """
        offset = self.size
        try:
            self._write(data, offset)
        except OSError:
            os.ftruncate(self._file, offset)
            raise
        self.size += len(data)
        return offset

    def _write(self, data: bytes, offset: int) -> None:
        """Write all of `data`; the operating system may take less at once."""
        while data:
            written = os.pwrite(self._file, data, offset)
            if not written:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            data, offset = data[written:], offset + written

    def is_at(self, path: Path) -> bool:
        """Whether this is still the file at `path`."""
        return is_file_at(self._file, path)

    def sync(self) -> None:
        """Make what was written last."""
        os.fsync(self._file)

    def _whole(self, line: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
        """The line at `offset`, or the whole lines inside of a damaged one, with their offsets."""
        if line.endswith(b"\n") and _is_whole(line):
            yield offset, line
            return
        self._report(offset)
        for start, whole in _whole_lines(line):
            yield offset + start, whole

    def _records(self, line: bytes, offset: int) -> Iterator[Record]:
        for begin, whole in self._whole(line, offset):
            data, messages = _parse(whole)
            if "format" not in data:
                yield Record(
                    data["first"],
                    tuple(messages),
                    data["created"],
                    data["digest"],
                    data["count"],
                    data["system"],
                    data.get("provenance", {}),
                    begin,
                    begin + len(whole),
                )

    def _lines_on(self, start: int) -> Iterator[tuple[int, bytes]]:
        """The lines from offset `start` on, with their offsets."""
        block, rest, read = _BLOCK, b"", start
        while read < self.size:
            data = os.pread(self._file, min(block, self.size - read), read)
            read += len(data)
            block = min(block * 2, _LARGEST_BLOCK)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield start, line + b"\n"
                start += len(line) + 1
        if rest:
            yield start, rest

    def _line_at(self, offset: int) -> bytes:
        block, data = _BLOCK, b""
        while offset + len(data) < self.size:
            data += os.pread(self._file, min(block, self.size - offset - len(data)), offset + len(data))
            newline = data.find(b"\n")
            if newline >= 0:
                return data[: newline + 1]
            block *= 2
        return data

    def _line_end(self, offset: int) -> int:
        """Where the line ends that holds the byte at `offset`."""
        return offset + len(self._line_at(offset))

    def _lines_back(self, end: int) -> Iterator[tuple[int, bytes]]:
        block, start, rest = _BLOCK, end, b""
        while start > 0:
            size = min(block, start)
            start -= size
            block *= 2
            data = os.pread(self._file, size, start) + rest
            # The first line may begin before this block, unless the block begins the file.
            first = 0 if start == 0 else data.find(b"\n") + 1
            stop = len(data)
            while stop > first:
                begin = data.rfind(b"\n", 0, stop - 1) + 1
                yield start + begin, data[begin:stop]
                stop = begin
            rest = data[:first]
