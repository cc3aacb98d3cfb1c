"""Runs a Hugging Face chat model in the server's own process."""
