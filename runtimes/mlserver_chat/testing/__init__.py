"""Test doubles of the seams, for this suite's tests and for yours; `python -m mlserver_chat.testing` starts the
OpenAI-compatible server by hand."""

from .doubles import FakeBackend, FakeModelClient, FakeScorer

__all__ = ["FakeBackend", "FakeModelClient", "FakeScorer"]
