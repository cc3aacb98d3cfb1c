"""The peers: each as its own documentation uses it. Imports are inside: they run in environments of their own."""

import asyncio
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from subjects import WINDOW, Subject


class LangChain(Subject):
    """A chat message history of LangChain: all messages are read, the window is cut afterwards."""

    async def clear(self, place: Any) -> None:
        await asyncio.to_thread(place.clear)

    async def fill(self, place: Any, length: int) -> None:
        from langchain_core.messages import HumanMessage

        await asyncio.to_thread(place.add_messages, [HumanMessage(f"message {n}") for n in range(length)])

    async def turn(self, place: Any, text: str) -> int:
        return await asyncio.to_thread(self._turn, place, text)

    def _turn(self, place: Any, text: str) -> int:
        from langchain_core.messages import HumanMessage

        place.add_message(HumanMessage(text))
        return len(place.messages[-WINDOW:])


class LangChainSql(LangChain):
    async def open(self, where: str) -> Any:
        from langchain_community.chat_message_histories import SQLChatMessageHistory

        return SQLChatMessageHistory("conversation", connection=where)


class LangChainFile(LangChain):
    async def open(self, where: str) -> Any:
        from langchain_community.chat_message_histories import FileChatMessageHistory

        return FileChatMessageHistory(str(Path(where) / "conversation.json"))


class LangChainPostgres(LangChain):
    async def open(self, where: str) -> Any:
        import psycopg
        from langchain_postgres import PostgresChatMessageHistory

        connection = psycopg.connect(where)
        PostgresChatMessageHistory.create_tables(connection, "history")
        return PostgresChatMessageHistory("history", str(uuid.uuid4()), sync_connection=connection)


class LangGraph(Subject):
    """A graph of one node that adds nothing, with a checkpointer: the state holds all messages."""

    config = {"configurable": {"thread_id": "conversation"}}

    def saver(self, where: str) -> Any: ...

    async def open(self, where: str) -> Any:
        from langgraph.graph import END, START, MessagesState, StateGraph

        graph = StateGraph(MessagesState)
        graph.add_node("step", lambda state: {})
        graph.add_edge(START, "step")
        graph.add_edge("step", END)
        return graph.compile(checkpointer=self.saver(where))

    async def clear(self, place: Any) -> None:
        await asyncio.to_thread(place.checkpointer.delete_thread, "conversation")

    def _say(self, place: Any, texts: list[str]) -> int:
        state = place.invoke({"messages": [("user", text) for text in texts]}, self.config)
        return len(state["messages"][-WINDOW:])

    async def fill(self, place: Any, length: int) -> None:
        await asyncio.to_thread(self._say, place, [f"message {n}" for n in range(length)])

    async def turn(self, place: Any, text: str) -> int:
        return await asyncio.to_thread(self._say, place, [text])


class LangGraphSqlite(LangGraph):
    def saver(self, where: str) -> Any:
        from langgraph.checkpoint.sqlite import SqliteSaver

        saver = SqliteSaver(sqlite3.connect(where, check_same_thread=False))
        saver.setup()
        return saver


class LangGraphPostgres(LangGraph):
    def saver(self, where: str) -> Any:
        import psycopg
        from langgraph.checkpoint.postgres import PostgresSaver
        from psycopg.rows import dict_row

        saver = PostgresSaver(psycopg.connect(where, autocommit=True, prepare_threshold=0, row_factory=dict_row))
        saver.setup()
        return saver


class Agents(Subject):
    """A session of the OpenAI Agents SDK."""

    async def open(self, where: str) -> Any:
        from agents.extensions.memory import SQLAlchemySession

        return SQLAlchemySession.from_url("conversation", url=where, create_tables=True)

    async def clear(self, place: Any) -> None:
        await place.clear_session()

    async def fill(self, place: Any, length: int) -> None:
        for start in range(0, length, 1000):
            numbers = range(start, min(start + 1000, length))
            await place.add_items([{"role": "user", "content": f"message {n}"} for n in numbers])

    async def turn(self, place: Any, text: str) -> int:
        await place.add_items([{"role": "user", "content": text}])
        return len(await place.get_items(limit=WINDOW))
