"""Settings that name a prompt and select one of its versions."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ...settings import Settings

PromptSource = str | dict[str, Any] | list[str | dict[str, Any]]
"""A path relative to `model-settings.json`, the prompt itself, or a list of both (versions of one prompt)."""


class PromptOptions(Settings):
    """Selects one of the versions of a prompt."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    version: str | None = None
    """Version to use, e.g. for a rollback. Default: the last of the list."""
    arms: dict[str, float] = {}
    """Split conversations by version and weight, e.g. `{"1": 90, "2": 10}`. A conversation stays on its version."""
    reload: bool = False
    """Load changed prompt files while the server runs. Default: load them once."""

    @model_validator(mode="after")
    def _check(self) -> "PromptOptions":
        if self.arms and (min(self.arms.values()) < 0 or sum(self.arms.values()) <= 0):
            raise ValueError("the weights of 'arms' must be 0 or more, and at least one over 0")
        if self.arms and self.version is not None:
            raise ValueError("'version' and 'arms' exclude each other; set one of them")
        return self


class TemplateOptions(Settings):
    """The LLM Module's format of a prompt."""

    uri: str
    """Template file, relative to `model-settings.json`."""
    tokens: dict[str, str] = {}
    """Constants for the template."""
    type: Literal["jinja"] = "jinja"
    """Template language of this format."""


class PromptUtils(Settings):
    """The LLM Module's `prompt_utils` settings."""

    prompt_options: TemplateOptions | None = None
    """Template that becomes one user message. It can use the tensors of its placeholders, and the conversation as
    `messages`."""
    tensor_name_outputs: list[str] | None = None
    """Accepted but unused, as in the LLM Module."""
    model_type: str | None = Field(
        default=None, pattern=r"^(chat\.completions|completions|embeddings|images\.generations)$"
    )
    """Accepted but unused: the conversation always consists of chat messages."""
