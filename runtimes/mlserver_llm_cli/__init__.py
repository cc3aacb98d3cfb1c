"""The command `mlserver-llm`."""
