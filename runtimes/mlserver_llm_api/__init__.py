"""Runtime for models behind an OpenAI-compatible API, such as OpenAI, Azure, Gemini, vLLM and Ollama."""

from .runtime import LLMRuntime
from .settings import LLMSettings

__all__ = ["LLMRuntime", "LLMSettings"]
