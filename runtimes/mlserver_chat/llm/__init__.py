"""The request path of an LLM step: options, prompts, backends."""
