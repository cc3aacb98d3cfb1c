"""The operations besides `append` and `window`: each answers with tensors of its own."""

import dataclasses

from mlserver.types import Datatype, InferenceRequest, ResponseOutput, TensorData

from mlserver_chat import MemoryStore, StoredMessage
from mlserver_chat.tensors import dumps, json_object, text_output

from .requests import integer_of

_PAGE = 1000
_LARGEST_PAGE = 10_000
_LARGEST_SEQUENCE = 2**62


async def delete(store: MemoryStore, memory_id: str) -> list[ResponseOutput]:
    """`deleted` INT64 `[1,1]`: how many messages the conversation had."""
    count = await store.delete(memory_id)
    deleted = ResponseOutput(name="deleted", datatype=Datatype.INT64, shape=[1, 1], data=TensorData([count]))
    return [text_output("memory_id", [memory_id]), deleted]


async def export(store: MemoryStore, memory_id: str, request: InferenceRequest) -> list[ResponseOutput]:
    """`messages` BYTES `[n,1]`: a page of the conversation, one JSON object each, as `exported` makes it.

    The request parameter `after` is the last sequence that the caller has (0), `limit` the size of the page (1000).
    """
    after = integer_of(request, "after", 0, _LARGEST_SEQUENCE, 0)
    limit = integer_of(request, "limit", 1, _LARGEST_PAGE, _PAGE)
    messages = await store.read(memory_id, after, limit)
    return [text_output("memory_id", [memory_id]), text_output("messages", [exported(each) for each in messages])]


def exported(stored: StoredMessage) -> str:
    """A stored message with all that is known about it, as one line of JSON."""
    record = {"sequence": stored.sequence, "created": stored.created, **json_object(stored.record, "a record")}
    return dumps(record | ({"provenance": dict(stored.provenance)} if stored.provenance else {}))


async def stats(store: MemoryStore) -> list[ResponseOutput]:
    """`stats` BYTES `[1,1]`: a JSON object with `conversations`, `messages`, `reachable`, `detail`."""
    return [text_output("stats", [dumps(dataclasses.asdict(await store.stats()))])]
