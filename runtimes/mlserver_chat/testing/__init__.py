"""Test doubles for this suite and for your own tests.

`python -m mlserver_chat.testing` starts the OpenAI-compatible test server.
"""

from .doubles import FakeBackend, FakeModelClient, FakeScorer
from .openai_server import OpenAIServer, Received, Reply

__all__ = ["FakeBackend", "FakeModelClient", "FakeScorer", "OpenAIServer", "Received", "Reply"]
