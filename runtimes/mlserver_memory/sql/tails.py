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
    the version of its conversation.

    Whoever takes a tail has it alone, and puts it back as it is then.
    """

    def __init__(self) -> None:
        self._tails: OrderedDict[Hashable, Tail] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def take(self, identity: Hashable) -> "Tail | None":
        """The tail of a conversation, None where it isn't known."""
        with self._lock:
            return self._taken(identity)

    def put(self, identity: Hashable, tail: "Tail") -> None:
        """Keep the tail of a conversation."""
        with self._lock:
            self._taken(identity)
            if tail.characters > _MOST_CHARACTERS:
                return
            self._tails[identity] = tail
            self._characters += tail.characters
            while self._characters > _MOST_CHARACTERS:
                self._characters -= self._tails.popitem(last=False)[1].characters

    def _taken(self, identity: Hashable) -> "Tail | None":
        tail = self._tails.pop(identity, None)
        self._characters -= tail.characters if tail is not None else 0
        return tail


class Tail:
    """All messages of a conversation over a sequence, and the newest system message if it isn't among them.

    Args:
        window: the newest `size` messages, as they were read.
        size: of the window.
        system: sequence of the newest system message, 0 for none.
    """

    version: tuple[str, float] | None = None
    """Of the conversation, where each has one: what its row says of itself."""

    def __init__(self, window: Window, size: int, system: int):
        self.system = system
        self._size = size
        self._messages = list(window.messages)
        self._after = self.last - size
        self._system = window.system
        self._read = time.monotonic()
        self.characters = self._weigh()

    @property
    def last(self) -> int:
        """Sequence of the newest message."""
        return self._messages[-1].sequence

    def is_enough(self, count: int, size: int) -> bool:
        """Whether it will hold the newest `size` messages once `count` more are appended, and was read lately."""
        is_fresh = time.monotonic() - self._read < _SECONDS
        return is_fresh and self.last + count - size >= self._after

    def append(self, stored: Sequence[StoredMessage], system: int, size: int) -> Window | None:
        """The newest `size` messages up to and including the `stored` ones, and the message with sequence `system` (0
        for none) if it is older; None where they aren't known, and then the tail is of no more use."""
        after = stored[-1].sequence - size
        if after < self._after or self.last != stored[0].sequence - 1:
            return None
        self.system = system
        self._size = max(self._size, size)
        self._messages += stored
        self.characters += _weight(stored)
        if len(self._messages) > 2 * self._size:
            self._cut(system)
        start = bisect_right(self._messages, after, key=_sequence)
        return Window(self._messages[start:], self._find(system) if 0 < system <= after else None)

    def _cut(self, system: int) -> None:
        """Not with every append: that would copy the list each time."""
        after = self.last - self._size
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
