"""Fields of `input` and `output` work like the same fields of a step."""

from collections.abc import Callable

import pytest

from mlserver_pipeline.engine.engine import Answer, Stall
from pipeline_lab import Lab, Model, after, emits, ints, values

MakeLab = Callable[..., Lab]

TWO = "steps: [{name: a}, {name: b}]"


def two(lab: MakeLab, output: str, late: int = 0, second: str = "y") -> Lab:
    """Steps `a` and `b`. The second answers some time after the first."""
    it = lab({"a": emits("x"), "b": emits(second)}, f"{TWO}\noutput: {output}")
    it.models["b"] = after(it.clock, late, it.models["b"])
    return it


async def test_output_tensors_get_new_names(lab: MakeLab) -> None:
    it = two(lab, "{steps: [a, b.outputs.y], tensorMap: {a.outputs.x: first, b.outputs.y: second}}")
    assert values(await it.run(ints("i", 1))) == [("first", [1]), ("second", [1])]


async def test_output_may_be_one_tensor_of_a_step(lab: MakeLab) -> None:
    it = lab({"a": emits("x", "y", "z")}, "steps: [{name: a}]\noutput: {steps: [a.outputs.z, a.outputs.x]}")
    assert values(await it.run(ints("i", 1))) == [("x", [1]), ("z", [1])]


@pytest.mark.parametrize(("late", "comes"), [(100, True), (101, False)])
async def test_output_has_its_own_window(lab: MakeLab, late: int, comes: bool) -> None:
    outcome = await two(lab, "{steps: [a, b], joinWindowMs: 100}", late).run(ints("i", 1))
    assert isinstance(outcome, Answer if comes else Stall)
    if isinstance(outcome, Stall):
        assert "the output got its sources more than joinWindowMs (100) apart" in outcome.text


@pytest.mark.parametrize(("late", "comes"), [(60_000, True), (60_001, False)])
async def test_window_is_a_minute_by_default(lab: MakeLab, late: int, comes: bool) -> None:
    for output in ("{steps: [a, b]}", "{steps: [a, b], joinWindowMs: 0}"):
        assert isinstance(await two(lab, output, late).run(ints("i", 1)), Answer if comes else Stall)


@pytest.mark.parametrize(
    ("join", "second", "answer"),
    [
        ("inner", "y", ["x", "y"]),
        ("any", "y", ["x"]),
        ("outer", "y", ["x", "y"]),
        ("inner", "other", None),
        ("any", "other", ["x"]),
        ("outer", "other", ["x"]),
    ],
)
async def test_output_steps_are_joined_by_steps_join(
    lab: MakeLab, join: str, second: str, answer: list[str] | None
) -> None:
    it = two(lab, f"{{steps: [a.outputs.x, b.outputs.y], stepsJoin: {join}}}", 5, second)
    outcome = await it.run(ints("i", 1))
    assert ([name for name, _ in values(outcome)] if isinstance(outcome, Answer) else None) == answer


SIDE = f"{TWO}\noutput: {{steps: [a, b]}}"


def beside(lab: MakeLab, field: str, late: int = 0, second: str = "y") -> Lab:
    """Two steps, and a second pipeline that reads both of their outputs."""
    side = f"""
    input: {{{field}}}
    steps: [{{name: c}}]
    """
    it = lab({"a": emits("x"), "b": emits(second), "c": emits("z")}, SIDE, side, names=("p", "side"))
    it.models["b"] = after(it.clock, late, it.models["b"])
    return it


BOTH = "externalInputs: [p.step.a.outputs.x, p.step.b.outputs.y]"
TRIGGERED = "externalInputs: [p.inputs], externalTriggers: [p.step.a.outputs.x, p.step.b.outputs.y]"
INPUTS: dict[str, tuple[str, int, str, list[list[str]]]] = {
    "inner by default": (BOTH, 5, "y", [["x", "y"]]),
    "inner lacks one": (BOTH, 5, "other", []),
    "any, one after the other": (f"{BOTH}, joinType: any", 5, "y", [["x"], ["y"]]),
    "any, one alone": (f"{BOTH}, joinType: any", 5, "other", [["x"]]),
    "outer waits": (f"{BOTH}, joinType: outer", 5, "y", [["x", "y"]]),
    "outer, one alone": (f"{BOTH}, joinType: outer", 5, "other", [["x"]]),
    "within its window": (f"{BOTH}, joinWindowMs: 100", 100, "y", [["x", "y"]]),
    "beyond its window": (f"{BOTH}, joinWindowMs: 100", 101, "y", []),
    "triggers, inner by default": (TRIGGERED, 5, "y", [["i"]]),
    "triggers, inner lacks one": (TRIGGERED, 5, "other", []),
    "triggers, any": (f"{TRIGGERED}, triggersJoinType: any", 5, "y", [["i"], ["i"]]),
    "triggers, any, one alone": (f"{TRIGGERED}, triggersJoinType: any", 5, "other", [["i"]]),
    "triggers, outer, one alone": (f"{TRIGGERED}, triggersJoinType: outer", 5, "other", [["i"]]),
    "triggers beyond the window": (f"{TRIGGERED}, joinWindowMs: 100", 101, "y", []),
    "new names": (f"{BOTH}, tensorMap: {{p.step.a.outputs.x: n}}", 5, "y", [["n", "y"]]),
}


@pytest.mark.parametrize("case", INPUTS)
async def test_external_inputs_are_joined_by_join_type(lab: MakeLab, case: str) -> None:
    field, late, second, came = INPUTS[case]
    it = beside(lab, field, late, second)
    await it.start(ints("i", 1)).done
    assert it.got("c") == came


async def test_window_of_a_step_applies_to_sources_and_triggers(lab: MakeLab) -> None:
    spec = """
    steps:
    - name: slow
    - {name: joins, inputs: [p, slow], joinWindowMs: 100}
    - {name: waits, triggers: [slow], joinWindowMs: 100}
    output: {steps: [slow]}
    """
    for late, times in ((100, 1), (101, 0)):
        models: dict[str, Model] = {"joins": emits("y"), "waits": emits("z")}
        it = lab(models, spec)
        it.models["slow"] = after(it.clock, late, emits("x"))
        await it.start(ints("i", 1)).done
        assert (len(it.got("joins")), len(it.got("waits"))) == (times, times)
