"""No caller of an in-process LLM can starve the others, and callers that hang up delay no one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest

from support import ROOT, Server, text

CALLERS = 20
OPTIONS = {"max_tokens": 25, "temperature": 0}
SETTINGS = {
    "implementation": "mlserver_llm_local.runtime.Local",
    "parameters": {
        "extra": {"config": {"model_settings": {"model": str(ROOT / "models" / "support-tiny"), "device": "cpu"}}}
    },
}


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server]) -> Server:
    return mlserver({"support-tiny": SETTINGS})


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server.url, timeout=120, limits=limits) as made:
        yield made


async def ask(client: httpx2.AsyncClient, tenant: str, options: dict[str, object] = OPTIONS) -> None:
    """Ask for an answer, and check that it has as many tokens as the options allow."""
    inputs = [text("role", "user"), text("content", "My printer is jammed."), text("type", "text")]
    response = await client.post(
        "/v2/models/support-tiny/infer",
        json={"inputs": inputs, "parameters": {"llm_parameters": options}},
        headers={"x-tenant": tenant},
    )
    assert response.status_code == 200, response.text
    (output,) = [each for each in response.json()["outputs"] if each["name"] == "output_all"]
    assert json.loads(output["data"][0])["usage"]["completion_tokens"] == options["max_tokens"]


@asynccontextmanager
async def greedy_callers(client: httpx2.AsyncClient, tenants: list[str]) -> AsyncIterator[list[str]]:
    """Run callers that ask again as soon as they have an answer. Yields the tenants answered so far, in order."""
    answered: list[str] = []

    async def ask_on(tenant: str) -> None:
        while True:
            await ask(client, tenant)
            answered.append(tenant)

    tasks = [asyncio.create_task(ask_on(tenant)) for tenant in tenants]
    try:
        yield answered
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_new_tenant_is_served_next_among_greedy_tenants(client):
    tenants = [f"greedy-{number}" for number in range(CALLERS)]
    async with greedy_callers(client, tenants) as answered:
        await until(lambda: all(answered.count(tenant) >= 3 for tenant in tenants))
        for _ in range(2):  # as the steps of a pipeline do
            before = len(answered)
            await ask(client, "user")
            # One was running, and another may have begun while the request was on its way.
            assert len(answered) - before <= 3
        counts = [answered.count(tenant) for tenant in tenants]
        assert max(counts) - min(counts) <= 2


async def test_a_tenant_takes_turns_with_a_tenant_of_twenty_callers(client):
    async with greedy_callers(client, ["greedy"] * CALLERS) as answered:
        await until(lambda: len(answered) >= 2)
        for _ in range(3):
            before = len(answered)
            await ask(client, "user")
            assert len(answered) - before <= 3


async def test_callers_that_hung_up_delay_no_one(client):
    long = {"max_tokens": 1000, "temperature": 0}
    began = time.monotonic()
    await ask(client, "user", long)
    one_answer = time.monotonic() - began
    impatient = [asyncio.create_task(ask(client, f"impatient-{number}", long)) for number in range(12)]
    await asyncio.sleep(0.3)
    for task in impatient:
        task.cancel()
    await asyncio.gather(*impatient, return_exceptions=True)
    began = time.monotonic()
    await ask(client, "user", {"max_tokens": 8, "temperature": 0})
    # Twelve answers would take twelve times as long.
    assert time.monotonic() - began < one_answer / 2
