"""Chat messages and completions, and their encoding as tensors."""
