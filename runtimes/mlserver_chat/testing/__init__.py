"""Test doubles of the seams, for this suite's tests and for yours; `python -m mlserver_chat.testing` starts the
OpenAI-compatible server by hand."""

from .doubles import FakeBackend, FakeModelClient, FakeScorer
from .openai_server import OpenAIServer, Received, Reply

__all__ = ["FakeBackend", "FakeModelClient", "FakeScorer", "OpenAIServer", "Received", "Reply"]
