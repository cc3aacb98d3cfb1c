"""Semantics of the engine, shown with small arithmetic models."""

import asyncio
import json
from collections.abc import Callable

import pytest

from mlserver_pipeline.engine.engine import Answer, Failure, Stall
from mlserver_pipeline.engine.messages import StepMessage
from mlserver_pipeline.engine.trace import trace_rows
from pipeline_lab import Lab, adds, after, emits, fails, ints, message, multiplies, values

MakeLab = Callable[..., Lab]


async def test_chain_passes_tensors_on_under_their_new_names(lab: MakeLab) -> None:
    it = lab(
        {"add10": adds(10), "mul10": multiplies(10)},
        """
        steps:
        - name: add10
        - name: mul10
          inputs: [add10]
          tensorMap: {add10.outputs.OUTPUT: INPUT}
        output: {steps: [mul10]}
        """,
    )
    assert values(await it.run(ints("INPUT", 1, 2))) == [("OUTPUT", [110, 120])]
    assert it.got("mul10") == [["INPUT"]]


async def test_step_may_read_the_inputs_of_another_step(lab: MakeLab) -> None:
    it = lab(
        {"a": emits("x", "y"), "b": emits("z")},
        """
        steps:
        - name: a
        - name: b
          inputs: [a.inputs.first, a.outputs.y]
        output: {steps: [b]}
        """,
    )
    assert values(await it.run(ints("first", 1), ints("second", 2))) == [("z", [4])]
    assert it.got("b") == [["first", "y"]]


async def test_two_tensors_of_one_topic_are_one_source_and_either_fires_it(lab: MakeLab) -> None:
    spec = """
    steps:
    - name: a
    - name: b
      inputs: [a.outputs.x, a.outputs.y]
    output: {steps: [b]}
    """
    assert values(await lab({"a": emits("x"), "b": emits("z")}, spec).run(ints("i", 1))) == [("z", [1])]
    assert values(await lab({"a": emits("y", "w"), "b": emits("z")}, spec).run(ints("i", 1))) == [("z", [1])]


async def test_a_named_tensor_beside_the_bare_topic_leaves_only_the_named_one(lab: MakeLab) -> None:
    it = lab(
        {"a": emits("x", "y"), "b": emits("z")},
        "steps:\n- {name: a}\n- {name: b, inputs: [a, a.outputs.y]}\noutput: {steps: [b]}",
    )
    await it.run(ints("i", 1))
    assert it.got("b") == [["y"]]


async def test_an_inner_join_keeps_equal_names_in_declared_order_and_takes_id_and_parameters_from_the_left(
    lab: MakeLab,
) -> None:
    left = lambda sent: message(ints("OUTPUT", 1), side="left")  # noqa: E731
    right = lambda sent: message(ints("OUTPUT", 2), side="right", more=1)  # noqa: E731
    for slow in ("a", "b"):
        it = lab(
            {"a": left, "b": right},
            "steps:\n- {name: a}\n- {name: b}\noutput: {steps: [a, b]}",
        )
        it.models[slow] = after(it.clock, 50, it.models[slow])
        outcome = await it.run(ints("i", 1))
        assert values(outcome) == [("OUTPUT", [1]), ("OUTPUT", [2])]
        assert isinstance(outcome, Answer)
        assert outcome.message.parameters == {"side": "left"} and outcome.message.id == "id-1"


async def test_request_parameters_reach_steps_fed_by_the_request_and_then_the_models_own_replace_them(
    lab: MakeLab,
) -> None:
    it = lab(
        {"a": lambda sent: message(ints("x", 1), answered=True), "b": emits("y")},
        "steps:\n- {name: a}\n- {name: b, inputs: [a]}\noutput: {steps: [b]}",
    )
    await it.run(ints("i", 1), asked="yes")
    assert [dict(sent.parameters) for _, sent in it.calls] == [{"asked": "yes"}, {"answered": True}]


async def test_any_join_passes_the_source_that_arrives(lab: MakeLab) -> None:
    spec = """
    steps:
    - name: choice
    - name: mul10
      inputs: [choice.outputs.OUTPUT0]
    - name: add10
      inputs: [choice.outputs.OUTPUT1]
    output: {steps: [mul10, add10], stepsJoin: any}
    """
    for taken, expected in (("OUTPUT0", 70), ("OUTPUT1", 17)):
        it = lab({"choice": emits(taken), "mul10": multiplies(10), "add10": adds(10)}, spec)
        assert values(await it.run(ints("INPUT", 7))) == [("OUTPUT", [expected])]


async def test_any_join_fires_for_each_source_that_arrives(lab: MakeLab) -> None:
    spec = "steps:\n- {name: a}\n- {name: b}\n- {name: c, inputs: [a, b], inputsJoinType: any}\noutput: {steps: [c]}"
    it = lab({"a": emits("x"), "b": emits("y"), "c": emits("z")}, spec)
    it.models["b"] = after(it.clock, 5, emits("y"))
    await it.run(ints("i", 1))
    assert it.got("c") == [["x"], ["y"]]


async def test_any_join_merges_sources_within_a_millisecond(lab: MakeLab) -> None:
    spec = "steps:\n- {name: a}\n- {name: b}\n- {name: c, inputs: [a, b], inputsJoinType: any}\noutput: {steps: [c]}"
    it = lab({"a": emits("x"), "b": emits("y"), "c": emits("z")}, spec)
    await it.run(ints("i", 1))
    assert it.got("c") == [["x"], ["x", "y"]]


async def test_first_message_at_the_output_wins_and_other_steps_finish(lab: MakeLab) -> None:
    it = lab(
        {"a": emits("x"), "side": emits("y"), "last": emits("z")},
        "steps:\n- {name: a}\n- {name: side}\n- {name: last, inputs: [side]}\noutput: {steps: [a]}",
    )
    it.models["side"] = after(it.clock, 100, emits("y"))
    assert values(await it.run(ints("i", 1))) == [("x", [1])]
    assert it.got("last") == [["y"]]


async def test_outer_join_waits_for_both_sources_while_steps_run(lab: MakeLab) -> None:
    spec = "steps:\n- {name: a}\n- {name: b}\n- {name: c, inputs: [a, b], inputsJoinType: outer}\noutput: {steps: [c]}"
    it = lab({"a": emits("x"), "b": emits("y"), "c": emits("z")}, spec)
    it.models["b"] = after(it.clock, 500, emits("y"))
    await it.run(ints("i", 1))
    assert it.got("c") == [["x", "y"]]


async def test_outer_join_releases_its_record_once_no_step_runs(lab: MakeLab) -> None:
    it = lab(
        {"a": emits("x"), "b": emits("other"), "c": emits("z")},
        """
        steps:
        - name: a
        - name: b
        - name: c
          inputs: [a.outputs.x, b.outputs.y]
          inputsJoinType: outer
        output: {steps: [c]}
        """,
    )
    assert values(await it.run(ints("i", 3))) == [("z", [3])]
    assert it.got("c") == [["x"]]


async def test_trigger_passes_the_data_and_adds_nothing(lab: MakeLab) -> None:
    spec = """
    steps:
    - name: route
    - name: left
      inputs: [p.inputs]
      triggers: [route.outputs.left]
    - name: right
      triggers: [route.outputs.right]
    output: {steps: [left, right], stepsJoin: any}
    """
    it = lab({"route": emits("left", "score"), "left": emits("l"), "right": emits("r")}, spec)
    assert values(await it.run(ints("i", 1))) == [("l", [1])]
    assert it.got("left") == [["i"]] and it.got("right") == []


@pytest.mark.parametrize(("kind", "both", "one"), [("inner", 1, 0), ("any", 2, 1), ("outer", 1, 1)])
async def test_triggers_are_joined_by_their_join_type(lab: MakeLab, kind: str, both: int, one: int) -> None:
    spec = f"""
    steps:
    - name: t1
    - name: t2
    - name: a
      triggers: [t1.outputs.go, t2.outputs.go]
      triggersJoinType: {kind}
    output: {{steps: [a]}}
    """
    for t2, times in ((emits("go"), both), (emits("no"), one)):
        it = lab({"t1": emits("go"), "t2": t2, "a": emits("x")}, spec)
        it.models["t2"] = after(it.clock, 10, t2)
        await it.run(ints("i", 1))
        assert len(it.got("a")) == times


async def test_two_trigger_tensors_of_one_topic_are_one_trigger(lab: MakeLab) -> None:
    it = lab(
        {"a": emits("x")},
        "steps:\n- {name: a, inputs: [p.inputs.i], triggers: [p.inputs.ok1, p.inputs.ok2]}\noutput: {steps: [a]}",
    )
    assert values(await it.run(ints("i", 1), ints("ok2", 1))) == [("x", [1])]


async def test_join_never_fires_if_a_step_takes_longer_than_the_window(lab: MakeLab) -> None:
    spec = "steps:\n- {name: a}\n- {name: b, inputs: [p, a], joinWindowMs: 100}\noutput: {steps: [b]}"
    it = lab({"a": emits("x"), "b": emits("y")}, spec)
    it.models["a"] = after(it.clock, 101, emits("x"))
    outcome = await it.run(ints("i", 1))
    assert isinstance(outcome, Stall)
    assert "step 'b' got its sources more than joinWindowMs (100) apart" in outcome.text
    it.models["a"] = after(it.clock, 100, emits("x"))
    assert values(await it.run(ints("i", 1))) == [("y", [2])]


async def test_trigger_after_the_window_never_fires(lab: MakeLab) -> None:
    spec = "steps:\n- {name: a}\n- {name: b, triggers: [a], joinWindowMs: 100}\noutput: {steps: [b]}"
    for late, times in ((100, 1), (101, 0)):
        it = lab({"b": emits("y")}, spec)
        it.models["a"] = after(it.clock, late, emits("x"))
        await it.run(ints("i", 1))
        assert len(it.got("b")) == times


async def test_trace_can_hide_data(lab: MakeLab) -> None:
    it = lab({"a": emits("x")}, "steps: [{name: a}]\noutput: {steps: [a]}")
    run = it.start(ints("i", 48213))
    await run.done
    shown, hidden = (json.loads(trace_rows(run.traces, values)[0]) for values in (True, False))
    assert shown["arrived"] == {"p.inputs": [{"i": [48213]}]} and shown["left"] == [{"x": [48213]}]
    assert hidden["arrived"] == {"p.inputs": [["i"]]} and hidden["left"] == [["x"]]


async def test_trace_separates_waiting_from_working_time(lab: MakeLab) -> None:
    spec = "steps: [{name: slow}, {name: join, inputs: [p, slow]}]\noutput: {steps: [join]}"
    it = lab({"join": emits("y")}, spec)

    async def slow(sent: StepMessage) -> StepMessage:
        await asyncio.sleep(0.05)
        return message(ints("x", 1))

    it.models["slow"] = slow
    run = it.start(ints("i", 1))
    await run.done
    first, second = (json.loads(row) for row in trace_rows(run.traces, True))
    assert first["ms"] >= 50 > 20 > first["waited_ms"] and second["waited_ms"] >= 50 > 20 > second["ms"]


async def test_stall_names_each_step_that_did_not_fire_and_what_it_lacked(lab: MakeLab) -> None:
    it = lab(
        {"a": emits("x"), "b": emits("y"), "c": emits("z")},
        """
        steps: [{name: a}, {name: b, inputs: [a.outputs.other]}, {name: c, inputs: [b]}]
        output: {steps: [a, c]}
        """,
    )
    outcome = await it.run(ints("i", 1))
    assert outcome == Stall(
        "pipeline 'p' has nothing in flight and no answer: step 'b' waits for a.outputs.other (a.outputs came without "
        "it); step 'c' waits for b.outputs; the output got a.outputs and waits for c.outputs"
    )


async def test_stall_names_what_arrived(lab: MakeLab) -> None:
    spec = "steps: [{name: a}, {name: b}, {name: c, inputs: [a.outputs.x, b.outputs.nope]}]\noutput: {steps: [c]}"
    outcome = await lab({"a": emits("x"), "b": emits("y")}, spec).run(ints("i", 1))
    assert isinstance(outcome, Stall)
    assert "step 'c' got a.outputs.x and waits for b.outputs.nope (b.outputs came without it)" in outcome.text


async def test_empty_requests_and_empty_answers_fire_nothing(lab: MakeLab) -> None:
    it = lab({"a": lambda sent: message()}, "steps:\n- {name: a}\noutput: {steps: [a]}")
    assert isinstance(await it.run(), Stall) and it.calls == []
    assert isinstance(await it.run(ints("i", 1)), Stall) and len(it.calls) == 1


async def test_pipeline_without_output_runs_but_never_answers(lab: MakeLab) -> None:
    it = lab({"a": emits("x")}, "steps:\n- {name: a}")
    outcome = await it.run(ints("i", 1))
    assert outcome == Stall("pipeline 'p' has no output section, so no caller gets an answer") and len(it.calls) == 1


async def test_output_without_steps_returns_the_inputs(lab: MakeLab) -> None:
    it = lab({"a": emits("x")}, "steps:\n- {name: a}\noutput: {}")
    assert values(await it.run(ints("i", 1), ints("j", 2))) == [("i", [1]), ("j", [2])]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (fails(400, "no"), "a : rpc error: code = InvalidArgument desc = no"),
        (fails(404, "no"), "a : rpc error: code = NotFound desc = no"),
        (fails(422, "no"), "a : rpc error: code = FailedPrecondition desc = no"),
        (fails(500, "no"), "a : rpc error: code = Internal desc = no"),
        (fails(503, "no"), "a : rpc error: code = Unknown desc = no"),
        (
            lambda sent: message(ints("x", 1 // 0)),
            "a : rpc error: code = Internal desc = integer division or modulo by zero",
        ),
    ],
)
async def test_step_error_is_the_pipelines_error_in_core_2s_words(lab: MakeLab, model: object, text: str) -> None:
    it = lab({"a": model, "b": emits("x")}, "steps:\n- {name: a}\n- {name: b, inputs: [a]}\noutput: {steps: [b]}")
    assert await it.run(ints("i", 1)) == Failure(text)
    assert it.got("b") == []


async def test_error_of_a_faster_side_branch_is_the_answer(lab: MakeLab) -> None:
    spec = "steps:\n- {name: a}\n- {name: side}\noutput: {steps: [a]}"
    it = lab({"a": emits("x"), "side": fails(422, "no")}, spec)
    it.models["a"] = after(it.clock, 10, emits("x"))
    assert isinstance(await it.run(ints("i", 1)), Failure) and len(it.calls) == 2
    it = lab({"a": emits("x"), "side": fails(422, "no")}, spec)
    it.models["side"] = after(it.clock, 10, fails(422, "no"))
    assert values(await it.run(ints("i", 1))) == [("x", [1])]


async def test_headers_follow_every_message_and_steps_add_their_own(lab: MakeLab) -> None:
    it = lab({"a": emits("x"), "b": emits("y")}, "steps:\n- {name: a}\n- {name: b, inputs: [a]}\noutput: {steps: [b]}")

    async def call(step: str, sent: StepMessage, headers: object) -> tuple[StepMessage, dict[str, str]]:
        answer, _ = await it._call(step, sent, headers)  # type: ignore[arg-type]
        return answer, {f"x-{step}": "1", "x-seldon-alibi-type": "dropped", "x-pipeline-version": "7"}

    it.engine.call = call
    outcome = await it.run(ints("i", 1))
    every = {"x-request-id": "r", "x-pipeline-version": "1"}
    assert it.headers == [every, {**every, "x-a": "1"}]
    assert isinstance(outcome, Answer) and outcome.headers == {**every, "x-a": "1", "x-b": "1"}


async def test_cancelled_step_is_an_error_and_never_hangs(lab: MakeLab) -> None:
    async def cancelled(sent: StepMessage) -> StepMessage:
        raise asyncio.CancelledError

    it = lab({"a": cancelled}, "steps: [{name: a}]\noutput: {steps: [a]}")
    assert await it.run(ints("i", 1)) == Failure("a : rpc error: code = Canceled desc = context canceled")
