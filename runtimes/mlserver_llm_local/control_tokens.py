"""Encodes rendered chats so that control tokens come only from the chat template, never from a message.

transformers has `sanitize_control_tokens` for this, with three gaps. It skips the keys of objects. It loses its marks
when a template prints a whole object. It misses a token that a message and the template spell together. So this module
marks the strings itself, and transformers only encodes the result.
"""

import re
import secrets
from collections.abc import Callable
from typing import Any, cast

from transformers.utils import chat_template_utils

from mlserver_chat import InvalidInput

_LOOKS_LIKE_CONTROL = re.compile(r"<\|.*\|>")
"""Form of control tokens that a template may build from pieces, so its source doesn't contain them."""
_MARK: Callable[[str, re.Pattern[str]], str] = cast(Any, chat_template_utils).mark_control_tokens
_MARKS_OF_TRANSFORMERS = str.maketrans(dict.fromkeys("\U000f0000\U000f0001", ""))


class ControlTokens:
    """The control tokens of a tokenizer: its special tokens, and the added tokens that its chat template writes.

    Args:
        tokenizer: the model's tokenizer, with its chat template.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        template = str(tokenizer.chat_template)
        listed = getattr(tokenizer, "chat_control_tokens", None) or ()

        def is_control(token: Any) -> bool:
            text = token.content
            # Every template contains white space, which some tokenizers have as added tokens.
            return not text.isspace() and (
                token.special or text in template or text in listed or bool(_LOOKS_LIKE_CONTROL.fullmatch(text))
            )

        texts: dict[int, str] = {
            id_: token.content for id_, token in tokenizer.added_tokens_decoder.items() if is_control(token)
        }
        self._ids = frozenset(texts)
        longest_first = sorted(texts.values(), key=len, reverse=True)
        self._longest = len(longest_first[0]) if longest_first else 0
        self._all = "\0".join(longest_first)
        self._beginnings = {text[:size] for text in longest_first for size in range(1, len(text))}
        self._endings = {text[-size:] for text in longest_first for size in range(1, len(text))}
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def may_continue(self, text: str) -> tuple[bool, bool]:
        """Return whether `text` could form a control token with text before it, and with text after it."""
        if len(text) <= self._longest and text and text in self._all:
            return True, True
        sizes = range(1, min(self._longest, len(text) + 1))
        return (
            any(text[:size] in self._endings for size in sizes),
            any(text[-size:] in self._beginnings for size in sizes),
        )

    def encode(self, text: str, marks: "Marks") -> list[int]:
        """Return the tokens of a chat that a template rendered from marked strings.

        Args:
            text: the rendered chat.
            marks: the marks in it.

        Raises:
            InvalidInput: the tokenizer makes a control token of a message all the same.
        """
        plain, spelled = marks.remove(text, self.pattern)
        pieces: list[str] = []
        end = 0
        for match in spelled:
            pieces += plain[end : match.start()], _MARK(match[0], self.pattern)
            end = match.end()
        pieces.append(plain[end:])
        encoded = self._tokenizer("".join(pieces), add_special_tokens=False, sanitize_control_tokens=True)
        tokens: list[int] = list(encoded["input_ids"])
        written = sum(1 for _ in self.pattern.finditer(plain)) - len(spelled)
        # A tokenizer that normalizes text may turn other characters into a control token.
        if sum(token in self._ids for token in tokens) > written:
            raise InvalidInput("a message spells a control token of this model")
        return tokens


class Marks:
    """Marks for the strings of one prompt. After rendering, they tell a message's text from the template's.

    A mark consists of random digits. Callers can't guess it, and it survives printing an object as JSON or as Python.

    Args:
        control: the control tokens to mark.
    """

    def __init__(self, control: ControlTokens):
        secret = str(secrets.randbelow(10**20)).zfill(20)
        self._control = control
        self._open, self._close, self._edge = (f"{secret}{kind}" for kind in "123")
        self._any = re.compile(f"{secret}[123]")

    def put(self, value: Any, is_argument: bool = False) -> Any:
        """Return a copy of a JSON value with all strings marked, including the keys of objects.

        Args:
            value: a JSON value.
            is_argument: whether it belongs to the arguments of a tool call. Templates don't look up keys there.
        """
        if isinstance(value, str):
            return self._put(value, edges=True)
        if isinstance(value, list):
            return [self.put(item, is_argument) for item in cast(list[Any], value)]
        if isinstance(value, dict):
            return {
                # Templates look up other keys and compare types, so marks around those would hide them.
                self._put(key, edges=is_argument): self._put(inner, edges=False)
                if key == "type" and isinstance(inner, str) and not is_argument
                else self.put(inner, is_argument or key == "arguments")
                for key, inner in cast(dict[str, Any], value).items()
            }
        return value

    def _put(self, text: str, edges: bool) -> str:
        text = text.translate(_MARKS_OF_TRANSFORMERS)
        before, behind = self._control.may_continue(text) if edges else (False, False)
        marked = self._control.pattern.sub(rf"{self._open}\g<0>{self._close}", text)
        return self._edge * before + marked + self._edge * behind

    def remove(self, text: str, pattern: re.Pattern[str]) -> tuple[str, list[re.Match[str]]]:
        """Remove the marks from a rendered chat.

        Returns:
            The chat without marks, and the matches of `pattern` in it that contain text of a message.
        """
        plain: list[str] = []
        places: dict[str, set[int]] = {self._open: set(), self._close: set(), self._edge: set()}
        position = end = 0
        for mark in self._any.finditer(text):
            plain.append(text[end : mark.start()])
            position += mark.start() - end
            end = mark.end()
            places[mark[0]].add(position)
        chat = "".join((*plain, text[end:]))
        marked = set[int]().union(*places.values())

        def is_spelled(match: re.Match[str]) -> bool:
            start, stop = match.span()
            is_whole = start in places[self._open] and stop in places[self._close]
            return is_whole or any(place in marked for place in range(start + 1, stop))

        return chat, [match for match in pattern.finditer(chat) if is_spelled(match)]
