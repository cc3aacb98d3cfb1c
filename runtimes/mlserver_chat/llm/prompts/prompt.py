"""The format of a prompt, which is a JSON file in git."""

import hashlib
import json
from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ...settings import Settings
from .render import HISTORY, LAST_USER_MESSAGE, MESSAGES, placeholders


class PromptMessage(Settings):
    """One message of a template."""

    role: str
    """`system`, `user`, `assistant`, …; or `placeholder`, whose content `{history}` expands to the conversation."""
    content: str
    """Text with `{placeholders}`, or a Jinja template if the prompt's `type` is `jinja`."""


class LegendEntry(Settings):
    """Meaning and source of a placeholder."""

    field: str | None = None
    """Name of the tensor with the value. Default: the name of the placeholder."""
    description: str = ""
    """Description for readers of the prompt."""


def _no_legend() -> dict[str, LegendEntry]:
    return {}


class Prompt(Settings):
    """A prompt, immutable once loaded."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    name: str = Field(min_length=1)
    """Name of the prompt. Every answer carries it."""
    version: str = "1"
    """Version of the prompt. Every answer carries it."""
    description: str = ""
    """Purpose of the prompt."""
    labels: dict[str, str] = {}
    """Free labels, e.g. `{"task": "qa"}`."""
    type: Literal["plain", "jinja"] = "plain"
    """`plain`: each `{name}` is replaced in one pass. `jinja`: sandboxed Jinja templates."""
    template: list[PromptMessage] = Field(min_length=1)
    """Messages to send."""
    legend: dict[str, LegendEntry] = Field(default_factory=_no_legend)
    """Meaning and source of the placeholders."""
    invocation_config: dict[str, Any] = {}
    """Generation options of this prompt, under OpenAI's names."""
    tokens: dict[str, str] = {}
    """Constants for a Jinja template."""

    @model_validator(mode="after")
    def _check(self) -> "Prompt":
        for message in self.template:
            if message.role == "placeholder" and message.content.strip() != "{history}":
                raise ValueError(f"prompt '{self.name}': a message of role 'placeholder' can only hold '{{history}}'")
        used = self.placeholders
        for name in self.legend:
            if name not in used:
                raise ValueError(f"prompt '{self.name}': the legend names '{name}', which is not in the template")
        return self

    def names_in(self, message: PromptMessage) -> frozenset[str]:
        """Return the names that one message of the template uses.

        Raises:
            ValueError: a Jinja template that doesn't parse.
        """
        return placeholders(message.content, self.type)

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """All names that the template uses, including `history` and `last_user_message`."""
        return frozenset[str]().union(*(self.names_in(message) for message in self.template))

    @cached_property
    def fields(self) -> dict[str, str]:
        """Tensor of each placeholder that takes one."""
        return {
            name: (self.legend[name].field if name in self.legend else None) or name
            for name in sorted(self.placeholders - self.tokens.keys() - self._conversation_names)
        }

    @cached_property
    def reads_conversation(self) -> bool:
        """Whether the template uses the conversation or its last message."""
        has_placeholder = any(message.role == "placeholder" for message in self.template)
        return has_placeholder or not self.placeholders.isdisjoint(self._conversation_names)

    @property
    def _conversation_names(self) -> frozenset[str]:
        """Names that stand for the conversation instead of a tensor."""
        return frozenset((HISTORY, LAST_USER_MESSAGE, *([MESSAGES] if self.type == "jinja" else [])))

    @property
    def renders_last_user_message(self) -> bool:
        """Whether the template renders the user's last message itself."""
        return LAST_USER_MESSAGE in self.placeholders

    def hash(self, llm: str) -> str:
        """Return the identity of LLM, template and invocation config: 16 hex digits of a SHA-256."""
        identity = {"llm": llm, **self.definition}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8")).hexdigest()[:16]

    @cached_property
    def definition(self) -> dict[str, Any]:
        """Everything but the LLM that decides an answer."""
        return self.model_dump(include={"type", "template", "tokens", "invocation_config"})
