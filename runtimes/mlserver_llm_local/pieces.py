"""Turns tokens into text as they are generated, without half characters or parts of stop texts."""

import re
from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"


class TextPieces:
    """Decodes tokens one by one. All pieces together are the answer.

    Several tokens may spell one character, and a token's text may depend on the token before it. So each token is
    decoded together with the previous ones. Its text is held back while it ends in the middle of a character, or in
    the beginning of a stop text.

    Args:
        decode: turns tokens into text.
        stops: texts that end the answer.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()):
        self._decode = decode
        self._stops = re.compile("|".join(map(re.escape, stops)) or "(?!)")
        self._beginnings = {stop[:size] for stop in stops for size in range(1, len(stop))}
        self._longest = max(map(len, self._beginnings), default=0)
        self._tokens: list[int] = []
        self._context = self._done = 0
        self._held = ""
        self.stopped = False
        """Whether a stop text was generated. The answer ends before it."""

    def add(self, token: int) -> str:
        """Add a token and return the text that can now be shown, possibly ""."""
        self._tokens.append(token)
        known = self._decode(self._tokens[self._context : self._done])
        text = self._decode(self._tokens[self._context :])
        if len(text) <= len(known) or text.endswith(REPLACEMENT):
            return ""
        self._context, self._done = self._done, len(self._tokens)
        return self._release(text[len(known) :])

    def end(self) -> str:
        """Return the text that was held back, after the last token."""
        if self.stopped:
            return ""
        known = self._decode(self._tokens[self._context : self._done])
        rest = self._release(self._decode(self._tokens[self._context :])[len(known) :])
        return rest if self.stopped else rest + self._held

    def _release(self, text: str) -> str:
        held = self._held + text
        if found := self._stops.search(held):
            self.stopped = True
            self._held = ""
            return held[: found.start()]
        sizes = range(min(self._longest, len(held)), 0, -1)
        keep = next((size for size in sizes if held[-size:] in self._beginnings), 0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]
