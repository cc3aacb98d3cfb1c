"""A model behind an OpenAI-compatible API: OpenAI, Azure, Gemini, vLLM, Ollama, and whatever speaks the same."""

from .runtime import LLMRuntime
from .settings import LLMSettings

__all__ = ["LLMRuntime", "LLMSettings"]
