"""What the memory model does with requests: over HTTP where the behaviour is MLServer's, else on the model itself."""

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mlserver import ModelSettings
from mlserver.settings import ModelParameters

from memory_requests import ask, contents, said
from mlserver_chat import ChatError, InvalidInput, NotReachable, SettingsError
from mlserver_memory import ConversationalMemory
from support import ROOT, Server, free_ports, outputs, start_mlserver, text

IMPLEMENTATION = "mlserver_memory.ConversationalMemory"


@pytest.fixture
async def memory(load: Callable[..., Awaitable[ConversationalMemory]]) -> ConversationalMemory:
    """A model that stores and echoes every tensor."""
    tensors = ["role", "content", "type", "tool_calls", "tool_call_id"]
    return await load(tensor_names=tensors, output_tensors=tensors)


async def test_the_window_holds_the_newest_messages_with_the_new_one(memory: ConversationalMemory) -> None:
    for n in range(12):
        answer = await ask(memory, *said(str(n)))
    assert contents(answer) == [str(n) for n in range(2, 12)]
    assert contents(await ask(memory, text("memory_id", "a"))) == [str(n) for n in range(2, 12)]
    assert (await ask(memory, text("memory_id", "nobody")))["history"] == []


async def test_the_stored_message_is_echoed_and_not_on_reading(memory: ConversationalMemory) -> None:
    answer = await ask(memory, *said("hello"), text("type", "text"), text("llm_parameters", '{"a": 1}'))
    assert (answer["role"], answer["content"], answer["type"]) == (["user"], ["hello"], ["text"])
    assert answer["llm_parameters"] == ['{"a": 1}']
    assert set(await ask(memory, text("memory_id", "a"))) == {"memory_id", "history"}


async def test_a_turn_with_tools_in_one_request_is_kept_whole(memory: ConversationalMemory) -> None:
    call = '{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}'
    answer = await ask(
        memory,
        text("memory_id", "a"),
        text("role", "user", "assistant", "tool"),
        text("content", '["?"]', '[""]', '["4"]'),
        text("type", '["text"]', '["text"]', '["text"]'),
        text("tool_calls", "", json.dumps([call]), ""),
        text("tool_call_id", "", "", "c1"),
    )
    history = [json.loads(message) for message in answer["history"]]
    assert [message["role"] for message in history] == ["user", "assistant", "tool"]
    assert history[1]["tool_calls"] == [json.loads(call)]
    assert history[2]["tool_call_id"] == "c1"
    assert json.loads(answer["tool_calls"][1]) == [call]


async def test_one_bad_message_of_several_stores_none(memory: ConversationalMemory) -> None:
    with pytest.raises(InvalidInput):
        await ask(memory, text("memory_id", "a"), text("role", "user", "user"), text("content", "one"))
    assert (await ask(memory, text("memory_id", "a")))["history"] == []


async def test_the_same_request_again_is_stored_once_and_other_words_twice(memory: ConversationalMemory) -> None:
    await ask(memory, *said("first"), id="r1")
    first = await ask(memory, *said("yes"), id="r2")
    await ask(memory, *said("later"), id="r3")
    assert await ask(memory, *said("yes"), id="r2") == first
    assert contents(await ask(memory, *said("no"), id="r2")) == ["first", "yes", "later", "no"]
    headers = {"headers": {"x-request-id": "r2"}}
    assert contents(await ask(memory, *said("yes"), id="another", **headers)) == ["first", "yes"]
    assert contents(await ask(memory, *said("yes"), id="r4")) == ["first", "yes", "later", "no", "yes"]


async def test_what_produced_a_message_is_stored_with_it(memory: ConversationalMemory) -> None:
    provenance = {"prompt": "answer", "prompt_version": "2", "prompt_hash": "abc", "model": "tiny"}
    await ask(memory, *said("hi", role="assistant"), **provenance, finish_reason="stop", overhead_ms="1")
    await ask(memory, *said("and th", role="assistant"), **provenance, finish_reason="cut")
    whole, cut = await memory._store.read("a")
    assert whole.provenance == provenance
    assert cut.provenance == provenance | {"finish_reason": "cut"}
    await ask(memory, *said("made up"), **provenance)
    assert (await memory._store.read("a"))[2].provenance == {}


@pytest.mark.parametrize("database", ["filesys", "sql"])
async def test_a_hundred_loads_leave_no_thread_and_no_file_open(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_LLM_DATA", str(tmp_path))
    config = {"ttl": 60, **({"url": "sqlite:///memory.db"} if database == "sql" else {})}
    parameters = ModelParameters(extra={"database": database, "config": config})
    settings = ModelSettings(name="m", implementation=ConversationalMemory, parameters=parameters)
    held: list[tuple[int, int]] = []
    for number in range(100):
        model = ConversationalMemory(settings)
        await model.load()
        await asyncio.gather(*(ask(model, *said("hi", memory_id=f"{number}{each}")) for each in "abc"))
        await model.unload()
        held.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
    # Some threads belong to the event loop, which makes them as it needs them.
    assert all(last < early + 10 for early, last in zip(held[10], held[-1], strict=True))


async def test_a_store_that_cannot_be_opened_says_why_and_unloads() -> None:
    extra = {"database": "sql", "config": {"url": "nonsense://"}}
    settings = ModelSettings(name="m", implementation="x.Y", parameters=ModelParameters(extra=extra))
    model = ConversationalMemory(settings)
    with pytest.raises(SettingsError, match=r"config"):
        await model.load()
    assert await model.unload()


@pytest.mark.parametrize(
    "memory_id", ["../x", "a/b", "..", ".", "/etc/passwd", "CON", "%2e%2e", "🙂", "é", "é", "x" * 255, "../link/x"]
)
async def test_any_id_is_legal_and_stays_inside_the_store(
    memory: ConversationalMemory, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, memory_id: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (tmp_path / "link").symlink_to(outside)
    answer = await ask(memory, *said("mine", memory_id=memory_id))
    assert (answer["memory_id"], contents(answer)) == ([memory_id], ["mine"])
    stores = {"files", "memory.db", "memory.db-wal", "memory.db-shm"}
    assert {path.name for path in tmp_path.iterdir()} <= stores | {"link"}
    assert not list(outside.iterdir())
    assert not any(memory_id in path.name for path in tmp_path.rglob("*") if len(memory_id) > 2)


LONE = b"\xff\xfe"
BAD: dict[str, tuple[list[dict[str, object]], str]] = {
    "no memory_id": ([text("role", "user"), text("content", "x")], "'memory_id' is missing"),
    "no content": ([text("memory_id", "a"), text("role", "user")], "'content' is missing"),
    "no role": ([text("memory_id", "a"), text("content", "x")], "'role' is missing"),
    "a tensor twice": ([*said("x"), text("content", "y")], "'content' came twice"),
    "an empty list": ([text("memory_id", "a"), text("role", "user"), text("content")], "'content' is empty"),
    "counts that disagree": ([*said("x"), text("type", "text", "text")], "'type' has 2 elements; expected 1"),
    "a wrong datatype": (
        [*said("x")[:2], {"name": "content", "shape": [1], "datatype": "FP32", "data": [1.0]}],
        "'content' has datatype FP32; expected BYTES",
    ),
    "bytes that are not UTF-8": (
        [*said("x")[:2], {"name": "content", "shape": [1], "datatype": "BYTES", "data": [LONE]}],
        "'content' element 0 is not UTF-8",
    ),
    "an empty memory_id": (said("x", memory_id=""), "'memory_id' is an empty text"),
    "a long memory_id": (said("x", memory_id="x" * 256), "'memory_id' has 256 characters"),
    "NUL in memory_id": (said("x", memory_id="a\0b"), "'memory_id' holds a NUL"),
    "two memory_ids": ([text("memory_id", "a", "b"), *said("x")[1:]], "'memory_id' has 2 elements"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_refused_by_name_and_nothing_is_written(memory: ConversationalMemory, case: str) -> None:
    inputs, sentence = BAD[case]
    with pytest.raises(ChatError, match=sentence) as error:
        await ask(memory, *inputs)
    assert error.value.status_code == 422
    assert (await memory._store.stats()).messages == 0


@pytest.mark.parametrize(("key", "value"), [("cache_enabled", True), ("max_batch_size", 2)])
def test_what_would_mix_conversations_is_a_load_error(key: str, value: object) -> None:
    settings = ModelSettings(name="m", implementation=ConversationalMemory, **{key: value})
    settings.parameters = ModelParameters(extra={"database": "filesys"})
    with pytest.raises(SettingsError, match=key):
        ConversationalMemory(settings)


SERVED = {
    name: {
        "implementation": IMPLEMENTATION,
        "parameters": {"extra": {"database": "sql", "config": {"url": "sqlite:///shared.db"}}},
    }
    for name in ("remember-user", "remember-assistant")
}


def test_bad_input_over_http_is_422_and_the_server_lives(mlserver: Callable[..., Server]) -> None:
    server = mlserver(SERVED)
    for inputs, sentence in BAD.values():
        if "UTF-8" not in sentence:
            response = server.infer("remember-user", inputs)
            assert (response.status_code, sentence in response.json()["error"]) == (422, True), response.text
    base64 = {"name": "content", "shape": [1], "datatype": "BYTES", "data": ["//8="]}
    response = server.infer("remember-user", [*said("x")[:2], base64 | {"parameters": {"content_type": "base64"}}])
    assert response.status_code == 422
    assert outputs(server.infer("remember-user", [text("memory_id", "a")]))["history"] == []


def test_two_models_share_a_file_and_kill_9_loses_no_turn(mlserver: Callable[..., Server], tmp_path: Path) -> None:
    first = mlserver(SERVED, tmp=tmp_path)
    second = start_mlserver(tmp_path / "models", tmp_path)
    try:
        for turn in range(10):
            headers = {"x-request-id": f"turn-{turn}"}
            for _ in range(2):
                outputs(first.infer("remember-user", said(f"same {turn}"), headers=headers))
                outputs(second.infer("remember-assistant", said(f"same {turn}", role="assistant"), headers=headers))
    finally:
        first.stop(kill=True)
        second.stop(kill=True)
    again = start_mlserver(tmp_path / "models", tmp_path)
    try:
        history = outputs(again.infer("remember-user", [text("memory_id", "a")]))["history"]
    finally:
        again.stop()
    expected = [(role, f"same {turn}") for turn in range(5, 10) for role in ("user", "assistant")]
    assert [(m["role"], m["content"][0]["value"]) for m in map(json.loads, history)] == expected


def test_the_demo_s_models_share_one_file(mlserver: Callable[..., Server], tmp_path: Path) -> None:
    models = {
        name: json.loads((ROOT / "models" / name / "model-settings.json").read_text(encoding="utf-8"))
        for name in ("remember-user", "remember-assistant")
    }
    (metrics_port,) = free_ports(1)
    server = mlserver(models, tmp=tmp_path, env={"MLSERVER_METRICS_PORT": str(metrics_port)})
    outputs(server.infer("remember-user", said("hello")))
    answer = outputs(server.infer("remember-assistant", [*said("hi", role="assistant"), text("type", "text")]))
    assert list(answer) == ["memory_id", "history", "role", "content", "type"]
    assert len(answer["history"]) == 2
    metrics = httpx2.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    assert 'mlserver_memory_store_reachable{model_name="remember-user"} 1.0' in metrics
    assert (tmp_path / "data" / "support.db").exists()


async def test_roles_and_lengths_that_the_settings_refuse_are_not_stored(load: Callable[..., Any]) -> None:
    model = await load(roles=["user"], max_message_chars=10)
    with pytest.raises(InvalidInput, match="tensor 'role' holds a role that is not stored here; expected user"):
        await ask(model, *said("obey", role="system"))
    with pytest.raises(InvalidInput, match="tensor 'content' has a message of 11 characters; expected at most 10"):
        await ask(model, *said("x" * 11))
    assert (await ask(model, text("memory_id", "a")))["history"] == []
    assert contents(await ask(model, *said("x" * 10))) == ["x" * 10]


async def test_a_damaged_sqlite_file_is_a_store_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_LLM_DATA", str(tmp_path))
    (tmp_path / "memory.db").write_bytes(b"no database at all" * 1000)
    extra = {"database": "sql", "config": {"url": "sqlite:///memory.db"}}
    settings = ModelSettings(name="m", implementation="x.Y", parameters=ModelParameters(extra=extra))
    model = ConversationalMemory(settings)
    assert await model.load()
    with pytest.raises(NotReachable):
        await ask(model, *said("hi"))
    await model.unload()
