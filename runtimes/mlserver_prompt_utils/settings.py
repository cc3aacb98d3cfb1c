"""Settings of the prompt runtime."""

from mlserver_chat import PromptSettings, SiblingSettings


class PromptRuntimeSettings(PromptSettings, SiblingSettings):
    """Settings of `mlserver_prompt_utils.runtime.PromptRuntime`, under `parameters.extra`."""
