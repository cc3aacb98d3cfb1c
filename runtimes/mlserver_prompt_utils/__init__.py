"""Runtime that fills a prompt and sends it to the LLM of another model."""
