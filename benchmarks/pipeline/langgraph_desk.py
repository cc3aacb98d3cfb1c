"""Runs the support desk's graph in LangGraph, built as in LangGraph's documentation.

It uses `MessagesState`, prompt templates, a chat model that answers at once, and the SQLite saver: `SqliteSaver` with
`invoke` for one caller, `AsyncSqliteSaver` with `ainvoke` for more. With `--tuned` it runs on uvloop and collects
garbage less often.

Reads commands from standard input, one JSON object on each line (`callers`, `turns`, `round`, `durability`). Answers
each with the seconds of the whole command and of every turn. `run.py` starts it in its own environment.
"""

import asyncio
import gc
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any, Literal

import uvloop
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph


class Desk(MessagesState, total=False):
    route: str
    issue_number: str
    issue_status: str


class Fake(BaseChatModel):
    """Routes by a word and answers at once."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        text = "status" if "status of" in str(messages[-1].content) else "support"
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)


def chain(*messages: Any) -> Any:
    return ChatPromptTemplate(messages) | Fake()


HISTORY = MessagesPlaceholder("messages")
ROUTE = chain(("system", "Choose the route of the last message: status or support."), HISTORY)
STATUS = chain(
    ("system", "You are the QA team's status desk."),
    HISTORY,
    ("user", "Provide the status of {issue_number}. It is: {issue_status}"),
)
SUPPORT = chain(("system", "You are the support desk."), HISTORY)


def routed(state: Desk, answer: str) -> dict[str, str]:
    last = str(state["messages"][-1].content)
    return {"route": answer, "issue_number": last.split()[-1] if answer == "status" else ""}


def lookup_issue(state: Desk) -> dict[str, str]:
    return {"issue_status": "not found in the tracker" if state["issue_number"] else "no issue number given"}


def choose(state: Desk) -> Literal["answer_status", "answer_support"]:
    return "answer_status" if state["route"] == "status" else "answer_support"


class OneCaller:
    def route_request(self, state: Desk) -> dict[str, str]:
        return routed(state, ROUTE.invoke(state).content)

    def answer_status(self, state: Desk) -> dict[str, Any]:
        return {"messages": [STATUS.invoke(state)]}

    def answer_support(self, state: Desk) -> dict[str, Any]:
        return {"messages": [SUPPORT.invoke(state)]}


class ManyCallers:
    async def route_request(self, state: Desk) -> dict[str, str]:
        return routed(state, (await ROUTE.ainvoke(state)).content)

    async def answer_status(self, state: Desk) -> dict[str, Any]:
        return {"messages": [await STATUS.ainvoke(state)]}

    async def answer_support(self, state: Desk) -> dict[str, Any]:
        return {"messages": [await SUPPORT.ainvoke(state)]}


def compiled(nodes: OneCaller | ManyCallers, saver: Any) -> Any:
    graph = StateGraph(Desk)
    for node in (nodes.route_request, lookup_issue, nodes.answer_status, nodes.answer_support):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "route_request")
    graph.add_edge("route_request", "lookup_issue")
    graph.add_conditional_edges("lookup_issue", choose)
    graph.add_edge("answer_status", END)
    graph.add_edge("answer_support", END)
    return graph.compile(checkpointer=saver)


def turn_of(name: str, turn: int) -> tuple[dict[str, Any], dict[str, Any]]:
    question = f"what is the status of #4821{turn}?" if turn % 2 else "my printer has a paper jam"
    return {"messages": [{"role": "user", "content": question}]}, {"configurable": {"thread_id": name}}


def conversation(desk: Any, name: str, turns: int, durability: str) -> list[float]:
    seconds: list[float] = []
    for turn in range(turns):
        began = time.perf_counter()
        state = desk.invoke(*turn_of(name, turn), durability=durability)
        seconds.append(time.perf_counter() - began)
    assert len(state["messages"]) == 2 * turns, "every turn is stored"
    return seconds


async def aconversation(desk: Any, name: str, turns: int, durability: str) -> list[float]:
    seconds: list[float] = []
    for turn in range(turns):
        began = time.perf_counter()
        state = await desk.ainvoke(*turn_of(name, turn), durability=durability)
        seconds.append(time.perf_counter() - began)
    assert len(state["messages"]) == 2 * turns, "every turn is stored"
    return seconds


async def main(folder: Path) -> None:
    with sqlite3.connect(folder / "one.db", check_same_thread=False) as connection:
        one = compiled(OneCaller(), SqliteSaver(connection))
        async with AsyncSqliteSaver.from_conn_string(str(folder / "many.db")) as saver:
            many = compiled(ManyCallers(), saver)
            for line in sys.stdin:
                asked = json.loads(line)
                name, turns, durability = f"{asked['round']}-{asked['durability']}", asked["turns"], asked["durability"]
                began = time.perf_counter()
                if asked["callers"] == 1:
                    each = [conversation(one, name, turns, durability)]
                else:
                    names = [f"{name}-{number}" for number in range(asked["callers"])]
                    each = await asyncio.gather(
                        *(aconversation(many, one_name, turns, durability) for one_name in names)
                    )
                latencies = [second for seconds in each for second in seconds]
                answer = {"seconds": time.perf_counter() - began, "latencies": latencies}
                print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    if "--tuned" in sys.argv:
        # Like the other desk: on uvloop, and with the garbage collector's threshold of docs/runtimes.md.
        gc.set_threshold(10_000, 10, 10)
        uvloop.run(main(Path(sys.argv[1])))
    else:
        asyncio.run(main(Path(sys.argv[1])))
