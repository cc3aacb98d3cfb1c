"""A prompt bound to an LLM that another model serves."""
