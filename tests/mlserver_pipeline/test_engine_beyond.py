"""Cycles, several pipelines, and batches of several requests."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mlserver_pipeline.engine.engine import Failure, Stall
from mlserver_pipeline.engine.messages import StepMessage
from mlserver_pipeline.manifests.loading import load_graphs
from pipeline_lab import Lab, after, emits, fails, ints, manifest_text, message, values

MakeLab = Callable[..., Lab]


@pytest.mark.parametrize(("revisits", "fits"), [(2, True), (1, False)])
async def test_cycle_runs_a_step_once_more_than_it_may_be_revisited(lab: MakeLab, revisits: int, fits: bool) -> None:
    it = lab(
        {},
        f"""
        steps:
        - name: count
          inputs: [p, count.outputs.again]
          inputsJoinType: any
        output: {{steps: [count.outputs.done]}}
        allowCycles: true
        maxStepRevisits: {revisits}
        """,
    )

    def count(sent: StepMessage) -> StepMessage:
        number = sent.tensors[0].data[0] + 1
        return message(ints("done" if number == 3 else "again", number))

    it.models["count"] = after(it.clock, 5, count)
    outcome = await it.run(ints("i", 0))
    if fits:
        assert values(outcome) == [("done", [3])]
    else:
        assert outcome == Failure(
            "p : ERROR: Max step revisits (1) exceeded for request 0.p.r in topic "
            "TopicForPipeline(topicName=seldon.default.model.count.inputs, pipelineName=p)"
        )
        assert len(it.calls) == 2


async def test_pipeline_may_read_another_pipeline_loaded_with_it(lab: MakeLab) -> None:
    it = lab(
        {"a": emits("x"), "b": emits("y"), "c": emits("z")},
        "steps:\n- {name: a}\noutput: {steps: [a]}",
        """
        steps:
        - name: b
        - name: c
          inputs: [b]
        input:
          externalInputs: [p.outputs, p.step.a.inputs.i]
          tensorMap: {p.outputs.x: from-p}
        output: {steps: [c]}
        """,
        names=("p", "q"),
    )
    assert values(await it.run(ints("i", 4))) == [("x", [4])]
    assert it.got("b") == [["from-p", "i"]] and it.got("c") == [["y"]]
    assert values(await it.run(ints("i", 4), pipeline="q")) == [("z", [4])]


@pytest.mark.parametrize("model", [emits("x"), fails(422, "no")])
async def test_outcome_of_a_side_pipeline_does_not_reach_the_caller(lab: MakeLab, model: object) -> None:
    side = "input: {externalInputs: [p.inputs]}\nsteps: [{name: fast}]\noutput: {steps: [fast]}"
    it = lab({"fast": model}, "steps: [{name: slow}]\noutput: {steps: [slow]}", side, names=("p", "q"))

    async def slow(sent: StepMessage) -> StepMessage:
        await asyncio.sleep(0.01)
        return message(ints("answer", 1))

    it.models["slow"] = slow
    assert values(await it.run(ints("i", 1))) == [("answer", [1])] and it.got("fast") == [["i"]]


async def test_answer_resets_the_visits_of_a_cycle(lab: MakeLab) -> None:
    spec = """
    steps:
    - {name: count, inputs: [p, back], inputsJoinType: any}
    - {name: back, inputs: [count.outputs.again]}
    output: {steps: [count.outputs.done]}
    allowCycles: true
    """
    it = lab({}, spec)

    def count(sent: StepMessage) -> StepMessage:
        number = sent.tensors[0].data[0] + 1
        return message(ints("done", number), *([ints("again", number)] if number < 3 else []))

    it.models["count"], it.models["back"] = after(it.clock, 5, count), after(it.clock, 5, lambda sent: sent)
    assert values(await it.run(ints("i", 0))) == [("done", [1])]
    assert len(it.got("count")) == 3


async def test_batch_gathers_rows_across_requests_and_answers_the_last(lab: MakeLab) -> None:
    spec = "steps:\n- {name: a, batch: {size: 3}}\noutput: {steps: [a]}"
    it = lab({"a": lambda sent: message(*sent.tensors)}, spec)
    first = await it.run(ints("i", 1, 2), ints("j", 5))
    assert isinstance(first, Stall) and "step 'a' waits for other requests to fill its batch of 3" in first.text
    assert values(await it.run(ints("j", 6), ints("i", 3))) == [("i", [1, 2, 3]), ("j", [5, 6])]
    assert it.calls[0][1].tensors[0].shape == (3,) and it.calls[0][1].id == "id-1"
    assert isinstance(await it.run(ints("i", 4)), Stall)


async def test_step_with_several_sources_is_not_batched(lab: MakeLab) -> None:
    it = lab(
        {"a": emits("x"), "b": emits("y")},
        "steps:\n- {name: a}\n- {name: b, inputs: [a, p], batch: {size: 9}}\noutput: {steps: [b]}",
    )
    assert values(await it.run(ints("i", 1))) == [("y", [2])]


async def test_pipeline_that_is_not_loaded_sends_nothing(
    lab: MakeLab, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    spec = "steps: [{name: a}]\ninput: {externalInputs: [gone]}\noutput: {steps: [a]}"
    (tmp_path / "p.yaml").write_text(manifest_text(spec), encoding="utf-8")
    load_graphs("p.yaml", tmp_path)
    assert "pipeline 'p' reads pipeline 'gone', which is not loaded with it" in caplog.text
    assert values(await lab({"a": emits("x")}, spec).run(ints("i", 1))) == [("x", [1])]
