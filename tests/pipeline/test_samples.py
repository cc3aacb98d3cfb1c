"""Core 2's sample pipelines, rebuilt with small arithmetic models, answer as on Core 2."""

from collections.abc import Callable, Mapping

import pytest

from mlserver_pipeline.engine.engine import Answer
from mlserver_pipeline.engine.messages import StepMessage, Tensor
from pipeline_lab import Lab, Model, adds, after, ints, message, multiplies, values

A = list(range(1, 17))
TWICE = [2 * value for value in A]
ZERO = [0] * 16
F4 = [1, 2, 3, 4]


def named(sent: StepMessage) -> Mapping[str, list[int]]:
    return {tensor.name: tensor.data for tensor in sent.tensors}


def simple(sent: StepMessage) -> StepMessage:
    """`tfsimple`: the sum and the difference of two rows of 16."""
    first, second = named(sent)["INPUT0"], named(sent)["INPUT1"]
    pairs = list(zip(first, second, strict=True))
    return message(ints("OUTPUT0", *(a + b for a, b in pairs)), ints("OUTPUT1", *(a - b for a, b in pairs)))


def conditional(sent: StepMessage) -> StepMessage:
    """Answers one of two tensors, as `CHOICE` says."""
    choice = named(sent)["CHOICE"][0]
    return message(ints(f"OUTPUT{choice}", *named(sent)[f"INPUT{choice}"]))


def passes_if(choice: int) -> Model:
    """Answers its input if the tensor `choice` has this value, else a tensor that no step reads."""

    def model(sent: StepMessage) -> StepMessage:
        came = named(sent)
        return message(ints("OUTPUT", *came["INPUT"]) if came["choice"] == [choice] else ints("status", 0))

    return model


ROW = (ints("INPUT0", *A), ints("INPUT1", *A))
ARITHMETIC: dict[str, Model] = {"mul10": multiplies(10), "add10": adds(10)}


CHAIN = """
steps:
- name: one
- name: two
  inputs: [one]
  tensorMap: {one.outputs.OUTPUT0: INPUT0, one.outputs.OUTPUT1: INPUT1}
output: {steps: [two]}
"""
# Spec, models, request, answer.
CASES: dict[str, tuple[str, dict[str, Model], tuple[Tensor, ...], list[tuple[str, list[int]]]]] = {
    "one model": (
        "steps: [{name: one}]\noutput: {steps: [one]}",
        {"one": simple},
        ROW,
        [("OUTPUT0", TWICE), ("OUTPUT1", ZERO)],
    ),
    "a chain with new names": (CHAIN, {"one": simple, "two": simple}, ROW, [("OUTPUT0", TWICE), ("OUTPUT1", TWICE)]),
    "a step's inputs beside its outputs": (
        """
        steps:
        - name: one
        - name: two
          inputs: [one.inputs.INPUT0, one.outputs.OUTPUT1]
          tensorMap: {one.outputs.OUTPUT1: INPUT1}
        output: {steps: [two]}
        """,
        {"one": simple, "two": simple},
        ROW,
        [("OUTPUT0", A), ("OUTPUT1", A)],
    ),
    "a join of two models": (
        """
        steps:
        - name: one
        - name: two
        - name: three
          inputs: [one.outputs.OUTPUT0, two.outputs.OUTPUT1]
          tensorMap: {one.outputs.OUTPUT0: INPUT0, two.outputs.OUTPUT1: INPUT1}
        output: {steps: [three]}
        """,
        {"one": simple, "two": simple, "three": simple},
        ROW,
        [("OUTPUT0", TWICE), ("OUTPUT1", TWICE)],
    ),
    "two branches joined at the output": (
        """
        steps:
        - name: mul10
          inputs: [p.inputs.INPUT0]
        - name: add10
          inputs: [p.inputs.INPUT1]
        output: {steps: [mul10, add10]}
        """,
        ARITHMETIC,
        (ints("INPUT0", *F4), ints("INPUT1", *F4)),
        [("OUTPUT", [10, 20, 30, 40]), ("OUTPUT", [11, 12, 13, 14])],
    ),
}
for choice, expected in enumerate(([10, 20, 30, 40], [11, 12, 13, 14])):
    CASES[f"conditional {choice}"] = (
        """
        steps:
        - name: conditional
        - name: mul10
          inputs: [conditional.outputs.OUTPUT0]
          tensorMap: {conditional.outputs.OUTPUT0: INPUT}
        - name: add10
          inputs: [conditional.outputs.OUTPUT1]
          tensorMap: {conditional.outputs.OUTPUT1: INPUT}
        output: {steps: [mul10, add10], stepsJoin: any}
        """,
        {"conditional": conditional, **ARITHMETIC},
        (ints("CHOICE", choice), ints("INPUT0", *F4), ints("INPUT1", *F4)),
        [("OUTPUT", expected)],
    )
    CASES[f"triggers in the request {choice}"] = (
        """
        steps:
        - name: mul10
          inputs: [p.inputs.INPUT]
          triggers: [p.inputs.ok1, p.inputs.ok2]
          triggersJoinType: any
        - name: add10
          inputs: [p.inputs.INPUT]
          triggers: [p.inputs.ok3]
        output: {steps: [mul10, add10], stepsJoin: any}
        """,
        ARITHMETIC,
        (ints(("ok1", "ok3")[choice], 1), ints("INPUT", *F4)),
        [("OUTPUT", expected)],
    )
    CASES[f"routed by models that pass or don't {choice}"] = (
        """
        steps:
        - name: is-one
        - name: is-two
        - name: mul10
          inputs: [p.inputs.INPUT]
          triggers: [is-one.outputs.OUTPUT]
        - name: add10
          inputs: [p.inputs.INPUT]
          triggers: [is-two.outputs.OUTPUT]
        output: {steps: [mul10, add10], stepsJoin: any}
        """,
        {"is-one": passes_if(1), "is-two": passes_if(2), **ARITHMETIC},
        (ints("choice", choice + 1), ints("INPUT", *F4)),
        [("OUTPUT", expected)],
    )
for name, sent in {"first": ["TRIGGER1"], "second": ["TRIGGER2"], "both": ["TRIGGER1", "TRIGGER2"]}.items():
    CASES[f"any of two triggers: {name}"] = (
        """
        steps:
        - name: gate1
          inputs: [p.inputs.TRIGGER1]
        - name: gate2
          inputs: [p.inputs.TRIGGER2]
        - name: add10
          inputs: [p.inputs.INPUT]
          triggers: [gate1.outputs.OUTPUT, gate2.outputs.OUTPUT]
          triggersJoinType: any
        output: {steps: [add10]}
        """,
        {"gate1": adds(0), "gate2": adds(0), **ARITHMETIC},
        (ints("INPUT", *F4), *(ints(trigger, 1) for trigger in sent)),
        [("OUTPUT", [11, 12, 13, 14])],
    )


@pytest.mark.parametrize("case", CASES)
async def test_sample_answers_as_on_core_2(lab: Callable[..., Lab], case: str) -> None:
    spec, models, request, answer = CASES[case]
    assert values(await lab(models, spec).run(*request)) == answer


async def test_gate_without_an_answer_stops_the_joined_model(lab: Callable[..., Lab]) -> None:
    spec = """
    steps:
    - name: one
    - name: two
    - name: check
    - name: join
      inputs: [one.outputs.OUTPUT0, two.outputs.OUTPUT1]
      tensorMap: {one.outputs.OUTPUT0: INPUT0, two.outputs.OUTPUT1: INPUT1}
      triggers: [check.outputs.OUTPUT]
    output: {steps: [join]}
    """
    models: dict[str, Model] = {"one": simple, "two": simple, "join": simple}
    it = lab(models | {"check": lambda sent: message(ints("OUTPUT", 1))}, spec)
    assert values(await it.run(*ROW)) == [("OUTPUT0", TWICE), ("OUTPUT1", TWICE)]
    it = lab(models | {"check": lambda sent: message()}, spec)
    assert not isinstance(await it.run(*ROW), Answer) and it.got("join") == []


async def test_counter_runs_its_cycle_until_it_is_done(lab: Callable[..., Lab]) -> None:
    """The documented cyclic pipeline: its own output back in by `any`, a millisecond apart, until it stops."""
    spec = """
    steps:
    - name: counter
      inputs: [p.inputs, back.outputs.output]
      inputsJoinType: any
      tensorMap: {p.inputs.start: number, back.outputs.output: number}
    - name: back
      inputs: [counter.outputs.output]
      triggers: [counter.outputs.continue]
      joinWindowMs: 1
    - name: end
      inputs: [counter.outputs.output, counter.outputs.stop]
      triggers: [counter.outputs.stop]
      joinWindowMs: 1
    output: {steps: [end]}
    allowCycles: true
    maxStepRevisits: 100
    """
    it = lab({"back": lambda sent: sent, "end": lambda sent: sent}, spec)

    def count(sent: StepMessage) -> StepMessage:
        number = sent.tensors[0].data[0] + 1
        return message(ints("output", number), ints("stop" if number == 10 else "continue", 0))

    it.models["counter"] = after(it.clock, 5, count)
    it.models["back"] = after(it.clock, 5, lambda sent: sent)
    assert values(await it.run(ints("start", 0))) == [("output", [10]), ("stop", [0])]
    assert len(it.got("counter")) == 10


async def test_extended_pipeline_answers_its_caller_first(lab: Callable[..., Lab]) -> None:
    first = "steps: [{name: one}]\noutput: {steps: [one]}"
    for external in ("first.outputs", "first.step.one.outputs"):
        extended = f"""
        input:
          externalInputs: [{external}.OUTPUT0, {external}.OUTPUT1]
          tensorMap: {{{external}.OUTPUT0: INPUT0, {external}.OUTPUT1: INPUT1}}
        steps: [{{name: two}}]
        output: {{steps: [two]}}
        """
        it = lab({"one": simple, "two": simple}, first, extended, names=("first", "extended"))
        run = it.start(*ROW, pipeline="first")
        await run.done
        assert values(run.outcome.result()) == [("OUTPUT0", TWICE), ("OUTPUT1", ZERO)]
        ((_, sent),) = [call for call in it.calls if call[0] == "two"]
        assert named(sent) == {"INPUT0": TWICE, "INPUT1": ZERO}


async def test_pipeline_joins_two_others_or_is_triggered_by_one(lab: Callable[..., Lab]) -> None:
    first, second = (
        f"steps: [{{name: {name}, inputs: [first.inputs]}}]\noutput: {{steps: [{name}]}}".replace("first.", f"{pipe}.")
        for name, pipe in (("one", "first"), ("two", "second"))
    )
    second = second.replace("steps:", "input: {externalInputs: [first.inputs]}\nsteps:", 1)
    combined = """
    input:
      externalInputs: [first.outputs.OUTPUT0, second.outputs.OUTPUT1]
      tensorMap: {first.outputs.OUTPUT0: INPUT0, second.outputs.OUTPUT1: INPUT1}
    steps: [{name: three}]
    output: {steps: [three]}
    """
    triggered = """
    input:
      externalInputs: [first.outputs.OUTPUT0]
      externalTriggers: [second.outputs.OUTPUT1]
      tensorMap: {first.outputs.OUTPUT0: INPUT0}
    steps: [{name: four}]
    output: {steps: [four]}
    """
    models: dict[str, Model] = {"one": simple, "two": simple, "three": simple, "four": lambda sent: sent}
    names = ("first", "second", "combined", "triggered")
    it = lab(models, first, second, combined, triggered, names=names)
    await it.run(*ROW, pipeline="first")
    assert it.got("three") == [["INPUT0", "INPUT1"]] and it.got("four") == [["INPUT0"]]
