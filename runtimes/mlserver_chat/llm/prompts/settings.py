"""The settings that say where a prompt is and how one of its versions is chosen."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ...settings import Settings

PromptSource = str | dict[str, Any] | list[str | dict[str, Any]]
"""A path relative to `model-settings.json`, the prompt itself, or a list of these (versions of one prompt)."""


class PromptOptions(Settings):
    """How a prompt is chosen among its versions."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    version: str | None = None
    """Pin this version, which is also the rollback; default: the last of the list."""
    arms: dict[str, float] = {}
    """Split by version and weight, e.g. `{"1": 90, "2": 10}`; a conversation stays on its arm."""
    reload: bool = False
    """Re-read the prompt's files while running. Default: immutable until redeployed."""

    @model_validator(mode="after")
    def _check(self) -> "PromptOptions":
        if self.arms and (min(self.arms.values()) < 0 or sum(self.arms.values()) <= 0):
            raise ValueError("the weights of 'arms' must be 0 or more, and one of them over 0")
        if self.arms and self.version is not None:
            raise ValueError("'version' pins one prompt and 'arms' splits between several; set one of them")
        return self


class TemplateOptions(Settings):
    """The LLM Module's own form of a prompt."""

    uri: str
    """Template file, relative to `model-settings.json`."""
    tokens: dict[str, str] = {}
    """Constants for the template."""
    type: Literal["jinja"] = "jinja"
    """The only template language of this form."""


class PromptUtils(Settings):
    """The LLM Module's `prompt_utils` settings."""

    prompt_options: TemplateOptions | None = None
    """Template to render with the tensors of its placeholders and with `messages`, the conversation; its text becomes
    one user message."""
    tensor_name_outputs: list[str] | None = None
    """Accepted and unused, as in the LLM Module."""
    model_type: str | None = Field(
        default=None, pattern=r"^(chat\.completions|completions|embeddings|images\.generations)$"
    )
    """Accepted; the conversation is always read as chat messages."""
