"""Windows by request, operations, namespaces, retention and the token budget, on the model itself."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from memory_requests import ask, contents, said
from mlserver_chat import InvalidInput, SettingsError
from mlserver_memory import ConversationalMemory
from support import text

Load = Callable[..., Awaitable[ConversationalMemory]]


@pytest.fixture
async def memory(load: Load) -> ConversationalMemory:
    """A model with a conversation of ten messages."""
    model = await load()
    for n in range(10):
        await ask(model, *said(str(n)))
    return model


@pytest.mark.parametrize(
    "parameters",
    [
        {"window_size": 2},
        {"window_size": "2"},
        {"memory_parameters": {"window_size": 2}},
        {"memory_parameters": '{"window_size": 2}'},
    ],
    ids=str,
)
async def test_a_request_chooses_its_window(memory: ConversationalMemory, parameters: dict[str, Any]) -> None:
    assert contents(await ask(memory, text("memory_id", "a"), **parameters)) == ["8", "9"]
    assert contents(await ask(memory, *said("10"), **parameters)) == ["9", "10"]


@pytest.mark.parametrize("size", [0, -1, "0", 10_001, 1.5, "x", True, [2], "9" * 400])
async def test_a_window_that_can_not_be_is_refused_and_nothing_written(
    memory: ConversationalMemory, size: object
) -> None:
    with pytest.raises(InvalidInput, match="'window_size'"):
        await ask(memory, *said("new"), window_size=size)
    assert len((await ask(memory, text("memory_id", "a")))["history"]) == 10


@pytest.mark.parametrize("options", [5, [2], "2", '["window_size"]', {"window_size": 0}], ids=str)
async def test_memory_parameters_that_are_no_object_are_refused(memory: ConversationalMemory, options: object) -> None:
    with pytest.raises(InvalidInput, match=r"memory_parameters|window_size"):
        await ask(memory, *said("new"), memory_parameters=options)
    assert len((await ask(memory, text("memory_id", "a")))["history"]) == 10


async def test_operations_say_what_is_to_be_done(memory: ConversationalMemory) -> None:
    assert contents(await ask(memory, text("memory_id", "a"), operation="window", window_size=1)) == ["9"]
    assert contents(await ask(memory, *said("stored"), operation="append", window_size=1)) == ["stored"]
    stats = json.loads((await ask(memory, operation="stats"))["stats"][0])
    assert stats == {"conversations": 1, "messages": 11, "reachable": True, "detail": ""}
    assert await ask(memory, text("memory_id", "a"), operation="delete") == {"memory_id": ["a"], "deleted": [11]}
    assert (await ask(memory, text("memory_id", "a")))["history"] == []


async def test_an_export_pages_through_all_that_is_known(load: Load) -> None:
    model = await load()
    produced = {"prompt": "p", "prompt_version": "2"}
    await ask(model, *said("hello", "there", role="assistant"), operation="append", **produced)
    await ask(model, *said("hi"), **produced)
    pages = [await ask(model, text("memory_id", "a"), operation="export", after=n, limit="2") for n in (0, 2, 3)]
    rows = [json.loads(row) for page in pages for row in page["messages"]]
    assert [row["sequence"] for row in rows] == [1, 2, 3]
    assert [row["content"][0]["value"] for row in rows] == ["hello", "there", "hi"]
    assert rows[0]["provenance"] == {"prompt": "p", "prompt_version": "2"}
    assert "provenance" not in rows[2]
    assert abs(rows[2]["created"] - time.time()) < 60


@pytest.mark.parametrize("operation", ["drop", "", 5, "DELETE"])
async def test_an_unknown_operation_is_refused(memory: ConversationalMemory, operation: object) -> None:
    with pytest.raises(InvalidInput, match="parameter 'operation' asks for"):
        await ask(memory, *said("x"), operation=operation)


@pytest.mark.parametrize("operation", ["window", "delete", "export", "stats"])
async def test_a_message_is_appended_or_refused_and_never_passed_over(
    memory: ConversationalMemory, operation: str
) -> None:
    with pytest.raises(InvalidInput, match=f"asks for '{operation}' beside a message"):
        await ask(memory, *said("new"), operation=operation)
    assert contents(await ask(memory, text("memory_id", "a"))) == [str(n) for n in range(10)]


async def test_the_settings_choose_the_operations(load: Load) -> None:
    model = await load(operations=["append", "window"])
    await ask(model, *said("kept"))
    with pytest.raises(InvalidInput, match="'delete'; expected append, window"):
        await ask(model, text("memory_id", "a"), operation="delete")
    assert contents(await ask(model, text("memory_id", "a"))) == ["kept"]


async def test_to_append_needs_a_message(memory: ConversationalMemory) -> None:
    with pytest.raises(InvalidInput, match="'role' is missing"):
        await ask(memory, text("memory_id", "a"), operation="append")


async def test_a_header_gives_the_namespace_and_nothing_crosses_it(load: Load) -> None:
    model = await load(namespace_header="x-tenant")
    tenants = {name: {"headers": {"X-Tenant": name}} for name in ("one", "two")}
    for name, headers in tenants.items():
        await ask(model, *said(f"of {name}"), id="same", **headers)
    for name, headers in tenants.items():
        assert contents(await ask(model, text("memory_id", "a"), **headers)) == [f"of {name}"]
        assert json.loads((await ask(model, operation="stats", **headers))["stats"][0])["messages"] == 1
    assert (await ask(model, text("memory_id", "a"), operation="delete", **tenants["one"]))["deleted"] == [1]
    assert contents(await ask(model, text("memory_id", "a"), **tenants["two"])) == ["of two"]
    with pytest.raises(InvalidInput, match="header 'x-tenant' is missing"):
        await ask(model, *said("whose?"))


async def test_the_settings_give_the_namespace(load: Load) -> None:
    one, two, default = await load(namespace="one"), await load(namespace="two"), await load()
    await ask(one, *said("mine"))
    assert contents(await ask(one, text("memory_id", "a"))) == ["mine"]
    for other in (two, default):
        assert contents(await ask(other, text("memory_id", "a"))) == []


async def test_what_is_too_much_goes_by_itself_in_every_namespace(load: Load) -> None:
    model = await load(max_messages=2, prune_interval=0.05, namespace_header="x-tenant")
    for tenant in ("one", "two"):
        await ask(model, *said("1", "2", "3", "4"), headers={"x-tenant": tenant})
    for tenant in ("one", "two"):
        asked = {"headers": {"x-tenant": tenant}}
        for _ in range(100):
            if len((await ask(model, text("memory_id", "a"), **asked))["history"]) == 2:
                break
            await asyncio.sleep(0.05)
        assert contents(await ask(model, text("memory_id", "a"), **asked)) == ["3", "4"]


async def test_what_is_too_old_goes_by_itself(load: Load) -> None:
    model = await load(ttl=0.2, prune_interval=0.05)
    await ask(model, *said("soon gone"))
    for _ in range(100):
        if not (await ask(model, text("memory_id", "a")))["history"]:
            break
        await asyncio.sleep(0.05)
    assert (await ask(model, text("memory_id", "a")))["history"] == []


async def test_requests_are_answered_while_much_is_pruned(load: Load) -> None:
    model = await load()
    for number in range(150):
        await ask(model, *said("1", "2", "3", memory_id=str(number)))
    pruning = asyncio.create_task(model._store.prune(max_messages=1))
    answered = 0
    while not pruning.done():
        await ask(model, *said("meanwhile", memory_id="other"))
        answered += 1
    # One that is pruned may come in between, all of them may not.
    assert answered > 15
    assert await pruning >= 300


async def test_a_store_that_fails_while_pruning_is_pruned_the_next_time(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = await load(ttl=0.1, prune_interval=0.05)
    await ask(model, *said("soon gone"))
    with monkeypatch.context() as patch:
        patch.setattr(type(model._store), "namespaces", lambda _: 1 / 0)
        await asyncio.sleep(0.2)
        assert "pruning was put off: ZeroDivisionError" in caplog.text
    for _ in range(100):
        if not (await ask(model, text("memory_id", "a")))["history"]:
            break
        await asyncio.sleep(0.05)
    assert (await ask(model, text("memory_id", "a")))["history"] == []


async def test_the_window_fits_the_token_budget(load: Load, tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "words.json"))
    model = await load(max_tokens=6, tokenizer=str(tmp_path / "words.json"))
    await ask(model, *said("be kind", role="system"))
    for content in ("one two", "three four", "five six"):
        answer = await ask(model, *said(content))
    assert contents(answer) == ["be kind", "three four", "five six"]
    assert contents(await ask(model, *said("far more than six words for one message"))) == [
        "be kind",
        "far more than six words for one message",
    ]


async def test_a_tokenizer_that_is_not_there_is_a_load_error(load: Load) -> None:
    with pytest.raises(SettingsError, match="'max_tokens' and 'tokenizer' go together"):
        await load(max_tokens=6)
    with pytest.raises(SettingsError, match="tokenizer 'no/such' is not a readable"):
        await load(max_tokens=6, tokenizer="no/such")
