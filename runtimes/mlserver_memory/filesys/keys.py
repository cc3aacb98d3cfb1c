"""Cache of the keys of recently used conversations: from the key of an append to the offset of its record.

It lives in memory and is read from the records, which are the only truth. So a full disk or a damaged file can't make
it claim more than the records hold.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from .records import KEY_BYTES, RecordFile

MAX_KEYS = 200_000
"""Keys that are cached at most, some 25 MB. The conversation in use always is."""


@dataclass
class _Keys:
    """The keys of one conversation, as far as its file has been read."""

    file: tuple[int, int, str]
    """Device, inode and generation: another file, or another content, has another."""
    read: int = 0
    """Bytes of the file that were read."""
    offsets: dict[bytes, int] = field(default_factory=dict[bytes, int])


class KeyCache:
    """The keys of the conversations of one store. Any number of threads may use it.

    The caller holds the exclusive lock of the conversation's file, so no two threads work on one conversation.

    Args:
        most: keys that are cached.
    """

    def __init__(self, most: int = MAX_KEYS):
        self._most = most
        self._conversations: OrderedDict[str, _Keys] = OrderedDict()
        self._lock = threading.Lock()
        self._total = 0

    def find(self, conversation: str, records: RecordFile, digest: str) -> int | None:
        """The offset of the record with this key; None without one.

        Reads the records that were written since the last time, by whichever process.
        """
        keys = self._take(conversation, records)
        for known, offset in records.keys(keys.read):
            keys.offsets.setdefault(known, offset)
        keys.read = records.size
        self._put(conversation, keys)
        return keys.offsets.get(bytes.fromhex(digest)[:KEY_BYTES])

    def _take(self, conversation: str, records: RecordFile) -> _Keys:
        """The cached keys, or empty ones where they are those of another file."""
        file = records.identity()
        with self._lock:
            keys = self._conversations.pop(conversation, None)
            if keys is not None:
                self._total -= len(keys.offsets)
        if keys is None or keys.file != file or keys.read > records.size:
            return _Keys(file)
        return keys

    def _put(self, conversation: str, keys: _Keys) -> None:
        with self._lock:
            self._conversations[conversation] = keys
            self._total += len(keys.offsets)
            while self._total > self._most and len(self._conversations) > 1:
                _, oldest = self._conversations.popitem(last=False)
                self._total -= len(oldest.offsets)
