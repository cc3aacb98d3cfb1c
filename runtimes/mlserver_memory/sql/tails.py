"""What the conversations appended to last end with, so that an append doesn't read what it answers with."""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from operator import attrgetter

from mlserver_chat import StoredMessage, Window

_MOST_CHARACTERS = 16 * 1024 * 1024
"""Of all records held; the conversations that were appended to longest ago go first."""
_CHARACTERS_A_MESSAGE = 500
"""What a message takes besides its record."""

_sequence = attrgetter("sequence")


class Tails:
    """Valid as long as nobody else has written; who holds them has to know that."""

    def __init__(self) -> None:
        self._tails: OrderedDict[Hashable, _Tail] = OrderedDict()
        self._characters = 0

    def append(self, identity: Hashable, stored: Sequence[StoredMessage], system: int, size: int) -> Window | None:
        """The newest `size` messages of a conversation up to and including the `stored` ones, and the message with
        sequence `system` if it is older; None where that isn't known here."""
        tail = self._tails.pop(identity, None)
        if tail is None:
            return None
        self._characters -= tail.characters
        window = tail.append(stored, system, size)
        if window is not None:
            self._put(identity, tail)
        return window

    def keep(self, identity: Hashable, window: Window, size: int) -> None:
        """Keep the newest `size` messages of a conversation, as they were read."""
        self._put(identity, _Tail(window, size))

    def _put(self, identity: Hashable, tail: "_Tail") -> None:
        self._tails[identity] = tail
        self._characters += tail.characters
        while self._characters > _MOST_CHARACTERS:
            self._characters -= self._tails.popitem(last=False)[1].characters


class _Tail:
    """All messages of a conversation over a sequence, and the newest system message if it isn't among them."""

    def __init__(self, window: Window, size: int):
        self._size = size
        self._messages = list(window.messages)
        self._after = self._messages[-1].sequence - size
        self._system = window.system
        self.characters = self._weigh()

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
