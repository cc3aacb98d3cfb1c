"""What the conversations appended to last end with, so that an append doesn't read what it answers with."""

import threading
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from operator import attrgetter

from mlserver_chat import StoredMessage, Window

_MOST_CHARACTERS = 16 * 1024 * 1024
"""Of all records held; the conversations that were appended to longest ago go first."""
_SECONDS = 60.0
"""How long what somebody changed in the tables by hand, past the conversation's row, may stay unnoticed."""
_CHARACTERS_A_MESSAGE = 500
"""What a message takes besides its record."""

_sequence = attrgetter("sequence")


class Tails:
    """Valid as long as nobody else has written: whoever holds them knows that of the whole database, or each tail has
    the version of its conversation."""

    def __init__(self) -> None:
        self._tails: OrderedDict[Hashable, _Tail] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def version(self, identity: Hashable, count: int, size: int) -> str | None:
        """The version of a conversation whose newest `size` messages are known once `count` more are appended."""
        with self._lock:
            tail = self._tails.get(identity)
            return tail.version if tail is not None and tail.is_enough(count, size) else None

    def append(
        self,
        identity: Hashable,
        stored: Sequence[StoredMessage],
        system: int,
        size: int,
        known: str = "",
        version: str = "",
    ) -> Window | None:
        """The newest `size` messages of a conversation up to and including the `stored` ones, and the message with
        sequence `system` if it is older; None where that isn't known here.

        Args:
            identity: of the conversation.
            stored: what was appended.
            system: sequence of the newest system message, 0 for none.
            size: of the window.
            known: version of the conversation before.
            version: its version now.
        """
        with self._lock:
            tail = self._tails.get(identity)
            if tail is None or tail.version != known:
                return None
            self._remove(identity)
            window = tail.append(stored, system, size)
            if window is not None:
                tail.version = version
                self._put(identity, tail)
            return window

    def keep(self, identity: Hashable, window: Window, size: int, version: str = "") -> None:
        """Keep the newest `size` messages of a conversation, as they were read in this version."""
        with self._lock:
            self._remove(identity)
            self._put(identity, _Tail(window, size, version))

    def _remove(self, identity: Hashable) -> None:
        tail = self._tails.pop(identity, None)
        self._characters -= tail.characters if tail is not None else 0

    def _put(self, identity: Hashable, tail: "_Tail") -> None:
        self._tails[identity] = tail
        self._characters += tail.characters
        while self._characters > _MOST_CHARACTERS:
            self._characters -= self._tails.popitem(last=False)[1].characters


class _Tail:
    """All messages of a conversation over a sequence, and the newest system message if it isn't among them."""

    def __init__(self, window: Window, size: int, version: str):
        self._size = size
        self._messages = list(window.messages)
        self._after = self._messages[-1].sequence - size
        self._system = window.system
        self._read = time.monotonic()
        self.version = version
        self.characters = self._weigh()

    def is_enough(self, count: int, size: int) -> bool:
        is_fresh = time.monotonic() - self._read < _SECONDS
        return is_fresh and self._messages[-1].sequence + count - size >= self._after

    def append(self, stored: Sequence[StoredMessage], system: int, size: int) -> Window | None:
        after = stored[-1].sequence - size
        if after < self._after or self._messages[-1].sequence != stored[0].sequence - 1:
            return None
        self._size = max(self._size, size)
        self._messages += stored
        self.characters += _weight(stored)
        if len(self._messages) > 2 * self._size:
            self._cut(system)
        start = bisect_right(self._messages, after, key=_sequence)
        return Window(self._messages[start:], self._find(system) if 0 < system <= after else None)

    def _cut(self, system: int) -> None:
        """Not with every append: that would copy the list each time."""
        after = self._messages[-1].sequence - self._size
        self._system = self._find(system) if 0 < system <= after else None
        self._messages = self._messages[bisect_right(self._messages, after, key=_sequence) :]
        self._after = after
        self.characters = self._weigh()

    def _weigh(self) -> int:
        return _weight(self._messages) + (_weight([self._system]) if self._system is not None else 0)

    def _find(self, sequence: int) -> StoredMessage | None:
        if self._system is not None and self._system.sequence == sequence:
            return self._system
        index = bisect_left(self._messages, sequence, key=_sequence)
        found = self._messages[index] if index < len(self._messages) else None
        return found if found is not None and found.sequence == sequence else None


def _weight(messages: Sequence[StoredMessage]) -> int:
    return sum(len(message.record) + _CHARACTERS_A_MESSAGE for message in messages)
