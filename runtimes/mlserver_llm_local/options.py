"""Translates generation options under OpenAI's names to the arguments of `generate`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mlserver_chat import InvalidInput
from mlserver_chat.errors import reason_of
from mlserver_chat.llm.options import LENGTH_NAMES, without_neutral

_WITHOUT_EFFECT = ("parallel_tool_calls", "stream_options")
"""Options that need no action. A stream always carries its usage."""
_LOWEST_TEMPERATURE = 0.01
"""A lower temperature counts as 0, because dividing the logits by it may overflow. vLLM has the same bound."""


class GenerationOptions(BaseModel):
    """The options that the transformers backend knows.

    The ranges are those that compute: OpenAI's for the temperature, vLLM's upper bound for the repetition penalty and
    its reciprocal as the lower bound.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    max_tokens: int = Field(default=-1, ge=-1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.5, le=2)
    do_sample: bool | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: list[str] = []
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"

    @field_validator("max_tokens")
    @classmethod
    def _some_tokens(cls, value: int) -> int:
        if value == 0:
            raise ValueError("expected at least 1, or -1 for as many as the context holds")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value or []

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: list[str]) -> list[str]:
        if "" in value:
            raise ValueError("an empty text can't stop an answer")
        return value

    @field_validator("tool_choice")
    @classmethod
    def _free_choice(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        if value not in ("auto", "none"):
            raise ValueError("this model can't be made to call a tool; expected 'auto' or 'none'")
        return value

    @staticmethod
    def of(params: Mapping[str, Any]) -> "GenerationOptions":
        """Check the options of a request.

        Raises:
            InvalidInput: this backend doesn't have an option, or a value is out of range.
        """
        wanted = {
            ("max_tokens" if name in LENGTH_NAMES else name): value
            for name, value in without_neutral(params).items()
            if name not in _WITHOUT_EFFECT
        }
        try:
            return GenerationOptions.model_validate(wanted)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = first["loc"][0]
            if first["type"] == "extra_forbidden":
                known = ", ".join(GenerationOptions.model_fields)
                raise InvalidInput(f"option '{name}' is not supported by this model; supported are {known}") from error
            raise InvalidInput(f"option '{name}': {reason_of(first)}") from error

    def sampling(self) -> dict[str, Any]:
        """Return the arguments of `generate` that control sampling. The model's own defaults fill the others."""
        is_greedy = self.temperature is not None and self.temperature < _LOWEST_TEMPERATURE
        if self.do_sample is False or is_greedy:
            return (
                self._given("repetition_penalty")
                | dict.fromkeys(("temperature", "top_p", "top_k"), None)
                | {"do_sample": False}
            )
        given = self._given("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample")
        if any(name in given for name in ("temperature", "top_p", "top_k", "min_p")):
            given["do_sample"] = True
        return given

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}
