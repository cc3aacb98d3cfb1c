"""`stats`: what a store holds."""
# ruff: noqa: D103 (a name here is the whole sentence)

from mlserver_chat import MemoryStore

from .tools import fresh_id, say, user


async def conversations_and_messages_are_counted(store: MemoryStore) -> None:
    scoped = store.scope(fresh_id())
    assert ((await scoped.stats()).conversations, (await scoped.stats()).messages) == (0, 0)
    await say(scoped, "a", user("1"), user("2"))
    await say(scoped, "b", user("3"))
    stats = await scoped.stats()
    assert (stats.conversations, stats.messages, stats.reachable) == (2, 3, True)
