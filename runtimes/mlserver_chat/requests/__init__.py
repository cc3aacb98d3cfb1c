"""The request being answered: who sent it, which turn it belongs to, and closing its streams."""
