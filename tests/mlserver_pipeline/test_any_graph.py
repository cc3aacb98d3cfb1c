"""Random acyclic graphs: no request hangs, and the order in which models answer doesn't change the result."""

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver_pipeline.engine.engine import Outcome
from mlserver_pipeline.engine.messages import StepMessage
from pipeline_lab import Lab, Model, ints, message

TENSORS = ["x", "y"]


@st.composite
def graphs(draw: st.DrawFn, joins: list[str], triggers: bool) -> dict[str, Any]:
    """A spec of up to six steps, each reading earlier ones, and what each step emits."""
    size = draw(st.integers(1, 6))
    steps: list[dict[str, Any]] = []
    emitted: dict[str, list[str]] = {}
    for index in range(size):
        references = ["p", "p.inputs.x", *(f"s{earlier}" for earlier in range(index))]
        references += [
            f"s{earlier}.{side}.{tensor}"
            for earlier in range(index)
            for side in ("inputs", "outputs")
            for tensor in TENSORS
        ]
        step: dict[str, Any] = {
            "name": f"s{index}",
            "inputs": draw(st.lists(st.sampled_from(references), max_size=3, unique=True)),
            "inputsJoinType": draw(st.sampled_from(joins)),
        }
        if triggers:
            step["triggers"] = draw(st.lists(st.sampled_from(references), max_size=2, unique=True))
            step["triggersJoinType"] = draw(st.sampled_from(joins))
        steps.append(step)
        emitted[f"s{index}"] = draw(st.lists(st.sampled_from(TENSORS), unique=True))
    output = draw(
        st.lists(st.sampled_from([f"s{index}" for index in range(size)]), min_size=1, max_size=3, unique=True)
    )
    return {
        "spec": {"steps": steps, "output": {"steps": output, "stepsJoin": draw(st.sampled_from(joins))}},
        "emitted": emitted,
    }


def model(name: str, tensors: list[str], order: random.Random, lab: list[Lab]) -> Model:
    """Emits a digest of the message, after a random number of turns of the event loop."""

    async def answer(sent: StepMessage) -> StepMessage:
        for _ in range(order.randrange(4)):
            await asyncio.sleep(0)
        lab[0].clock.now += order.randrange(3)
        total = sum((position + 1) * value for position, tensor in enumerate(sent.tensors) for value in tensor.data)
        return message(*(ints(tensor, (total * 31 + len(name + tensor)) % 1009) for tensor in tensors), by=name)

    return answer


def run(graph: dict[str, Any], seed: int) -> Outcome:
    async def once() -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            here: list[Lab] = []
            order = random.Random(seed)
            models = {name: model(name, tensors, order, here) for name, tensors in graph["emitted"].items()}
            here.append(Lab(Path(folder), models, yaml.safe_dump(graph["spec"])))
            return await asyncio.wait_for(here[0].run(ints("x", 2), ints("z", 3)), 5)

    return asyncio.run(once())


@settings(max_examples=60, deadline=None)
@given(graphs(joins=["inner", "outer", "any"], triggers=True), st.integers(0, 99))
def test_no_request_hangs(graph: dict[str, Any], seed: int) -> None:
    run(graph, seed)


@settings(max_examples=60, deadline=None)
@given(graphs(joins=["inner", "outer"], triggers=True), st.lists(st.integers(0, 99), min_size=2, max_size=4))
def test_order_of_answers_changes_nothing_without_any_joins(graph: dict[str, Any], seeds: list[int]) -> None:
    outcomes = [run(graph, seed) for seed in seeds]
    assert all(outcome == outcomes[0] for outcome in outcomes[1:])
