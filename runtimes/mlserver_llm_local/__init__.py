"""A Hugging Face chat model in this process."""
