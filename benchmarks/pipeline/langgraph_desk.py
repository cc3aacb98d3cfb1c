"""The support desk's graph in LangGraph with its SQLite saver and a model that answers at once; prints JSON.

Needs `pip install langgraph langgraph-checkpoint-sqlite`. Run by `support_desk.py`.
"""

import json
import operator
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    messages: Annotated[list[dict[str, str]], operator.add]
    route: str
    issue_number: str
    issue_status: str


def route_request(state: State) -> State:
    last = state["messages"][-1]["content"]
    is_status = "status of" in last
    return {"route": "status" if is_status else "support", "issue_number": last.split()[-1] if is_status else ""}


def lookup_issue(state: State) -> State:
    return {"issue_status": "not found in the tracker" if state["issue_number"] else "no issue number given"}


def answer_status(state: State) -> State:
    prompt = [{"role": "system", "content": "You are the status desk."}, *state["messages"]]
    prompt.append(
        {"role": "user", "content": f"Provide the status of {state['issue_number']}: {state['issue_status']}"}
    )
    return {"messages": [{"role": "assistant", "content": "status"}]}


def answer_support(state: State) -> State:
    [{"role": "system", "content": "You are the support desk."}, *state["messages"]]
    return {"messages": [{"role": "assistant", "content": "support"}]}


def choose(state: State) -> Literal["answer_status", "answer_support"]:
    return "answer_status" if state["route"] == "status" else "answer_support"


def main() -> None:
    conversations, turns = int(sys.argv[1]), int(sys.argv[2])
    graph = StateGraph(State)
    for node in (route_request, lookup_issue, answer_status, answer_support):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "route_request")
    graph.add_edge("route_request", "lookup_issue")
    graph.add_conditional_edges("lookup_issue", choose)
    graph.add_edge("answer_status", END)
    graph.add_edge("answer_support", END)
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "checkpoints.db", check_same_thread=False)
        desk = graph.compile(checkpointer=SqliteSaver(connection))
        began = time.perf_counter()
        for conversation in range(conversations):
            config = {"configurable": {"thread_id": f"c{conversation}"}}
            for turn in range(turns):
                content = f"what is the status of #4821{turn}?" if turn % 2 else "my printer has a paper jam"
                result = desk.invoke({"messages": [{"role": "user", "content": content}]}, config)
        seconds = time.perf_counter() - began
        connection.close()
    assert len(result["messages"]) == 2 * turns, "every turn is stored"
    print(json.dumps({"turns_per_second": conversations * turns / seconds}))


if __name__ == "__main__":
    main()
