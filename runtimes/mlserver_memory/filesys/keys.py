"""The side index of a conversation: from the key of an append to the offset of its record, without reading the rest.

A hash table in a file. It is only ever a copy of what the records say, so nothing here is synced: its header names the
boot, the generation of the records and how far into them it has come, and whatever it lacks is read from there.
"""

import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from .records import RecordFile

_HEADER = struct.Struct("<8s36s36sQQQ")
"""Magic, boot, generation, bytes of the record file that are indexed, entries, slots."""
_SLOT = struct.Struct("<16sQ")
"""Half of the key's SHA-256, and the offset of its record; an offset of 0 is a free slot."""
_MAGIC = b"MLMKEYS1"
_SMALLEST = 64
_BUCKET = 16
"""Slots that are read at once."""


def _boot() -> str:
    """Names this run of the operating system: what an index lost in a power failure, it lost before this boot."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return str(uuid.uuid4())


_BOOT = _boot().encode("ascii")


class KeyIndex:
    """The index of one conversation, whose lock the caller holds.

    Args:
        path: the index file, made when it is absent.
        records: what it indexes.
        generation: that of the records.
    """

    def __init__(self, path: Path, records: RecordFile, generation: str):
        self._path = path
        self._records = records
        self._generation = generation.encode("ascii")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._indexed = self._entries = self._slots = 0
        self._read_header()
        self._catch_up()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def find(self, digest: str) -> int | None:
        """The offset of the record with this key, None without one."""
        key = _key(digest)
        for _, found, offset in self._probe(key):
            if offset == 0:
                return None
            if found == key:
                return offset
        return None

    def add(self, digest: str, offset: int, end: int) -> None:
        """Enter the record at `offset` whose line ends at `end`."""
        if (self._entries + 1) * 2 > self._slots:
            self._grow()
        key = _key(digest)
        for slot, found, taken in self._probe(key):
            if taken == 0:
                os.pwrite(self._file, _SLOT.pack(key, offset), _HEADER.size + slot * _SLOT.size)
                self._entries += 1
                break
            if found == key:
                break
        self._indexed = end
        self._write_header()

    def _read_header(self) -> None:
        data = os.pread(self._file, _HEADER.size, 0)
        if len(data) == _HEADER.size:
            magic, boot, generation, indexed, entries, slots = _HEADER.unpack(data)
            if (magic, boot, generation) == (_MAGIC, _BOOT, self._generation) and indexed <= self._records.size:
                self._indexed, self._entries, self._slots = indexed, entries, slots
                return
        self._replace(_SMALLEST, [])

    def _write_header(self) -> None:
        header = _HEADER.pack(_MAGIC, _BOOT, self._generation, self._indexed, self._entries, self._slots)
        os.pwrite(self._file, header, 0)

    def _catch_up(self) -> None:
        """Enter the records that a killed process wrote and did not enter."""
        if self._indexed < self._records.size:
            for record in self._records.oldest_first(self._indexed):
                self.add(record.digest, record.offset, record.end)

    def _probe(self, key: bytes) -> Iterator[tuple[int, bytes, int]]:
        """The slots where a key may be, in order: number, key and offset of each."""
        for first in _buckets(key, self._slots):
            data = os.pread(self._file, _BUCKET * _SLOT.size, _HEADER.size + first * _SLOT.size)
            for index, (found, offset) in enumerate(_SLOT.iter_unpack(data)):
                yield first + index, found, offset

    def _grow(self) -> None:
        data = os.pread(self._file, self._slots * _SLOT.size, _HEADER.size)
        self._replace(self._slots * 4, [entry for entry in _SLOT.iter_unpack(data) if entry[1]])

    def _replace(self, slots: int, entries: Sequence[tuple[bytes, int]]) -> None:
        table: list[tuple[bytes, int]] = [(b"", 0)] * slots
        for key, offset in entries:
            free = next(
                slot for first in _buckets(key, slots) for slot in range(first, first + _BUCKET) if not table[slot][1]
            )
            table[free] = (key, offset)
        # Without a header, what a killed process leaves here counts as nothing.
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, b"".join(_SLOT.pack(*entry) for entry in table), _HEADER.size)
        self._entries, self._slots = len(entries), slots
        self._write_header()


def _key(digest: str) -> bytes:
    return bytes.fromhex(digest)[:16]


def _buckets(key: bytes, slots: int) -> Iterator[int]:
    """First slots of the buckets where a key may be, its own first."""
    own = int.from_bytes(key[:8], "little") % (slots // _BUCKET)
    for step in range(slots // _BUCKET):
        yield (own + step) % (slots // _BUCKET) * _BUCKET
