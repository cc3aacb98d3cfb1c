"""What is measured: append one message to a conversation, then get its newest 50 messages.

A subject is made with the folder or the database URL it may use; `fill` brings the conversation to a length in the
quickest way the subject has, `turn` is what is timed. Imports are inside: subjects run in environments of their own.
"""

import asyncio
import json
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

WINDOW = 50


class Subject(Protocol):
    async def fill(self, length: int) -> None: ...

    async def turn(self, text: str) -> int:
        """How many messages came back."""
        ...


class Ours:
    """A `MemoryStore` of this project, through its seam."""

    def __init__(self, store: Any):
        self.store = store

    async def _append(self, texts: list[str], size: int) -> int:
        from mlserver_chat import AppendKey, Message

        messages = [Message.of_text("user", text) for text in texts]
        key = AppendKey("conversation", uuid.uuid4().hex, "bench", "content")
        return len((await self.store.append(key, messages, size)).messages)

    async def fill(self, length: int) -> None:
        # A few at a time, as turns come: the file store keeps and reads the messages of one append together.
        for start in range(0, length, 10):
            await self._append([f"message {n}" for n in range(start, min(start + 10, length))], 1)

    async def turn(self, text: str) -> int:
        return await self._append([text], WINDOW)


def ours_sql(where: str) -> Subject:
    from mlserver_memory.sql import SqlStore

    return Ours(SqlStore(where))


def ours_filesys(where: str) -> Subject:
    from mlserver_memory.filesys import FileSysStore

    return Ours(FileSysStore(Path(where)))


def _record(text: str) -> str:
    return json.dumps({"role": "user", "content": [{"type": "text", "value": text}]})


class Floor:
    """The same INSERT and window SELECT by hand on the same driver: no key, no order under concurrency, no pool."""

    def __init__(self, execute: Callable[..., Any], mark: str):
        self.execute, self.mark, self.next = execute, mark, 0
        execute(
            "CREATE TABLE floor (conversation TEXT, sequence BIGINT, record TEXT, PRIMARY KEY (conversation, sequence))"
        )

    def _insert(self, text: str) -> None:
        self.next += 1
        values = ("conversation", self.next, _record(text))
        self.execute(f"INSERT INTO floor VALUES ({self.mark}, {self.mark}, {self.mark})", values)

    async def fill(self, length: int) -> None:
        self.execute("BEGIN")
        for number in range(length):
            self._insert(f"message {number}")
        self.execute("COMMIT")

    async def turn(self, text: str) -> int:
        return await asyncio.to_thread(self._turn, text)

    def _turn(self, text: str) -> int:
        self._insert(text)
        query = f"SELECT * FROM floor WHERE conversation = {self.mark} AND sequence > {self.mark} ORDER BY sequence"
        return len(self.execute(query, ("conversation", self.next - WINDOW)).fetchall())


def floor_sqlite(where: str) -> Subject:
    connection = sqlite3.connect(where, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return Floor(connection.execute, "?")


def floor_psycopg(where: str) -> Subject:
    import psycopg

    return Floor(psycopg.connect(where, autocommit=True).execute, "%s")


class LangChain:
    """A chat message history of LangChain: all messages are read, the window is cut afterwards."""

    def __init__(self, history: Any):
        self.history = history

    async def fill(self, length: int) -> None:
        from langchain_core.messages import HumanMessage

        await asyncio.to_thread(self.history.add_messages, [HumanMessage(f"message {n}") for n in range(length)])

    async def turn(self, text: str) -> int:
        return await asyncio.to_thread(self._turn, text)

    def _turn(self, text: str) -> int:
        from langchain_core.messages import HumanMessage

        self.history.add_message(HumanMessage(text))
        return len(self.history.messages[-WINDOW:])


def langchain_sql(where: str) -> Subject:
    from langchain_community.chat_message_histories import SQLChatMessageHistory

    return LangChain(SQLChatMessageHistory("conversation", connection=where))


def langchain_file(where: str) -> Subject:
    from langchain_community.chat_message_histories import FileChatMessageHistory

    return LangChain(FileChatMessageHistory(str(Path(where) / "conversation.json")))


def langchain_postgres(where: str) -> Subject:
    import psycopg
    from langchain_postgres import PostgresChatMessageHistory

    connection = psycopg.connect(where)
    PostgresChatMessageHistory.create_tables(connection, "history")
    return LangChain(PostgresChatMessageHistory("history", str(uuid.uuid4()), sync_connection=connection))


class LangGraph:
    """A graph of one node that adds nothing, with a checkpointer: the state holds all messages."""

    def __init__(self, saver: Any):
        from langgraph.graph import END, START, MessagesState, StateGraph

        graph = StateGraph(MessagesState)
        graph.add_node("step", lambda state: {})
        graph.add_edge(START, "step")
        graph.add_edge("step", END)
        self.graph = graph.compile(checkpointer=saver)
        self.config = {"configurable": {"thread_id": "conversation"}}

    def _say(self, texts: list[str]) -> int:
        state = self.graph.invoke({"messages": [("user", text) for text in texts]}, self.config)
        return len(state["messages"][-WINDOW:])

    async def fill(self, length: int) -> None:
        await asyncio.to_thread(self._say, [f"message {n}" for n in range(length)])

    async def turn(self, text: str) -> int:
        return await asyncio.to_thread(self._say, [text])


def langgraph_sqlite(where: str) -> Subject:
    from langgraph.checkpoint.sqlite import SqliteSaver

    return LangGraph(SqliteSaver(sqlite3.connect(where, check_same_thread=False)))


def langgraph_postgres(where: str) -> Subject:
    import psycopg
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row

    saver = PostgresSaver(psycopg.connect(where, autocommit=True, prepare_threshold=0, row_factory=dict_row))
    saver.setup()
    return LangGraph(saver)


class Agents:
    """A session of the OpenAI Agents SDK."""

    def __init__(self, session: Any):
        self.session = session

    async def fill(self, length: int) -> None:
        for start in range(0, length, 1000):
            numbers = range(start, min(start + 1000, length))
            await self.session.add_items([{"role": "user", "content": f"message {n}"} for n in numbers])

    async def turn(self, text: str) -> int:
        await self.session.add_items([{"role": "user", "content": text}])
        return len(await self.session.get_items(limit=WINDOW))


def agents_sql(where: str) -> Subject:
    from agents.extensions.memory import SQLAlchemySession

    return Agents(SQLAlchemySession.from_url("conversation", url=where, create_tables=True))
