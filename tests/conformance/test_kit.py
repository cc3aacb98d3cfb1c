"""The conformance kit finds a store that breaks its promise."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mlserver_chat import AppendKey, ConversationInfo, Message, StoredMessage, StoreStats, Window
from mlserver_memory import InMemoryStore
from mlserver_memory.conformance import SPECS, Spec


class KnowsNoReplay(InMemoryStore):
    async def append(self, key: AppendKey, messages: Sequence[Message], size: int, *more: Any, **named: Any) -> Window:
        return await super().append(replace(key, request_id=uuid.uuid4().hex), messages, size, *more, **named)


class LosesOneOfSeveral(InMemoryStore):
    async def append(self, key: AppendKey, messages: Sequence[Message], size: int, *more: Any, **named: Any) -> Window:
        return await super().append(key, messages[:1], size, *more, **named)


class ForgetsTheSystemMessage(InMemoryStore):
    async def window(self, memory_id: str, size: int) -> Window:
        return Window((await super().window(memory_id, size)).messages)


class ReadsBackwards(InMemoryStore):
    async def read(self, memory_id: str, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        return (await super().read(memory_id, after, limit))[::-1]


class ListsNone(InMemoryStore):
    async def conversations(self) -> AsyncIterator[ConversationInfo]:
        for info in list[ConversationInfo]():
            yield info


class DeletesNothing(InMemoryStore):
    async def delete(self, memory_id: str) -> int:
        return len(await self.read(memory_id))


class PrunesInADryRun(InMemoryStore):
    async def prune(self, *limits: Any, dry_run: bool = False, **named: Any) -> int:
        return await super().prune(*limits, **named)


class CountsNothing(InMemoryStore):
    async def stats(self) -> StoreStats:
        return StoreStats(0, 0)


class KnowsNoNamespace(InMemoryStore):
    def scope(self, namespace: str) -> InMemoryStore:
        return self


BROKEN: dict[type[InMemoryStore], str] = {
    KnowsNoReplay: "append",
    LosesOneOfSeveral: "append",
    ForgetsTheSystemMessage: "window",
    ReadsBackwards: "read",
    ListsNone: "conversations",
    DeletesNothing: "delete",
    PrunesInADryRun: "prune",
    CountsNothing: "stats",
    KnowsNoNamespace: "scope",
}


async def is_kept(spec: Spec, store: InMemoryStore) -> bool:
    try:
        await spec.run(store)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_store_that_breaks_a_promise_is_found_by_the_specs_of_that_verb(kind: type[InMemoryStore]) -> None:
    specs = [spec for spec in SPECS if spec.verb == BROKEN[kind]]
    assert not all([await is_kept(spec, kind()) for spec in specs])


def test_every_verb_has_a_store_that_breaks_it() -> None:
    assert set(BROKEN.values()) == {spec.verb for spec in SPECS}
