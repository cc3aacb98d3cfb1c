"""A window that fits a number of tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mlserver_chat import SettingsError, StoredMessage

from .settings import WindowSettings


class TokenBudget:
    """Cuts a window to the newest messages that have at most `max_tokens` tokens together.

    Args:
        max_tokens: tokens of texts and tool calls; what a chat template adds around them is not counted.
        count: tokens of a text.
    """

    def __init__(self, max_tokens: int, count: Callable[[str], int]):
        self._max_tokens = max_tokens
        self._count = count

    @classmethod
    def load(cls, config: WindowSettings, folder: Path) -> "TokenBudget | None":
        """The budget of the settings; `folder` is that of `model-settings.json`.

        Raises:
            SettingsError: the tokenizer can't be loaded.
        """
        if config.max_tokens is None or config.tokenizer is None:
            return None
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError:
            raise SettingsError("'max_tokens' needs the library 'tokenizers'; install it") from None
        path = folder / config.tokenizer
        try:
            tokenizer = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
        except Exception:
            raise SettingsError(f"tokenizer '{config.tokenizer}' is not a readable 'tokenizer.json'") from None
        return cls(config.max_tokens, lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids))

    def newest(self, messages: Sequence[StoredMessage], pinned: StoredMessage | None) -> list[StoredMessage]:
        """The newest of `messages` that fit beside `pinned`, oldest first; at least one."""
        left = self._max_tokens - (self._tokens(pinned) if pinned is not None else 0)
        kept: list[StoredMessage] = []
        for message in reversed(messages):
            left -= 0 if message is pinned else self._tokens(message)
            if left < 0 and kept:
                break
            kept.insert(0, message)
        return kept

    def _tokens(self, stored: StoredMessage) -> int:
        message = stored.message
        return sum(self._count(text) for text in (*(part.value for part in message.parts), *message.tool_calls))
