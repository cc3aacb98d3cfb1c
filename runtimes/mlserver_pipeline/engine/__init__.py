"""Runs requests through pipelines: decides which step runs when."""
