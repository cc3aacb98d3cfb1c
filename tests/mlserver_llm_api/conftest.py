"""The OpenAI-compatible test server, and a backend that talks to it."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from mlserver_chat.testing import OpenAIServer
from mlserver_llm_api.openai_backend import OpenAIBackend, build_client
from mlserver_llm_api.settings import OpenAISettings

KEY = "sk-test-planted-0123456789"


@pytest.fixture
def key() -> str:
    """The API key of `backend`, which no text may hold."""
    return KEY


@pytest.fixture(scope="module")
def _server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def api(_server: OpenAIServer) -> OpenAIServer:
    """The server, with an empty script and nothing received."""
    _server.reset()
    return _server


@pytest.fixture
async def backend(api: OpenAIServer) -> AsyncIterator[Callable[..., OpenAIBackend]]:
    """A factory: `backend(max_retries=2, …)`; without retries by default."""
    made: list[OpenAIBackend] = []

    def build(max_bytes: int = 2**20, **settings: Any) -> OpenAIBackend:
        config = OpenAISettings(
            **{"base_url": api.base_url, "model_id": "m", "api_key": KEY, "max_retries": 0, "timeout": 5, **settings}
        )
        made.append(OpenAIBackend(build_client(config, max_bytes), config.model, config.timeout, config.stream_timeout))
        return made[-1]

    yield build
    for each in made:
        await each.aclose()
