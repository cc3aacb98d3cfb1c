"""More of Core 2's sample pipelines: triggers of the request, errors, batches, families of pipelines."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlserver.errors import MLServerError

from mlserver_chat import SettingsError
from mlserver_pipeline.engine.engine import Failure, Stall
from mlserver_pipeline.engine.messages import StepMessage
from mlserver_pipeline.manifests.loading import load_graphs
from pipeline_lab import Lab, Model, adds, ints, manifest_text, message, values

MakeLab = Callable[..., Lab]

A = list(range(1, 17))
TWICE = [2 * value for value in A]
ZERO = [0] * 16
ROW = (ints("INPUT0", *A), ints("INPUT1", *A))


def simple(sent: StepMessage) -> StepMessage:
    """`tfsimple`: returns the sum and the difference of two rows of 16 numbers, and refuses other rows."""
    rows = {tensor.name: tensor.data for tensor in sent.tensors}
    for name in ("INPUT0", "INPUT1"):
        if len(rows[name]) != 16:
            raise MLServerError(f"unexpected shape for input '{name}'. Expected [1,16], got [1,{len(rows[name])}]", 400)
    pairs = list(zip(rows["INPUT0"], rows["INPUT1"], strict=True))
    return message(ints("OUTPUT0", *(a + b for a, b in pairs)), ints("OUTPUT1", *(a - b for a, b in pairs)))


def sums(sent: StepMessage) -> StepMessage:
    """`join_node`: adds two numbers."""
    return message(ints("OUTPUT1", sum(tensor.data[0] for tensor in sent.tensors)))


def rows(sent: StepMessage) -> StepMessage:
    """Stands for a detector. Returns the number of rows."""
    return message(ints("is_drift", len(sent.tensors[0].data)))


@pytest.mark.parametrize("sent", [["TRIGGER1"], ["TRIGGER2"], ["TRIGGER1", "TRIGGER2"]])
async def test_either_trigger_of_the_request_runs_the_step(lab: MakeLab, sent: list[str]) -> None:
    spec = """
    steps:
    - name: join
      inputs: [p.inputs.INPUT1, p.inputs.INPUT2]
      triggers: [p.inputs.TRIGGER1, p.inputs.TRIGGER2]
      triggersJoinType: any
    output: {steps: [join]}
    """
    it = lab({"join": sums}, spec)
    request = [ints(name, 1) for name in ("INPUT1", "INPUT2", *sent)]
    assert values(await it.run(*request)) == [("OUTPUT1", [2])]
    assert it.got("join") == [["INPUT1", "INPUT2"]]


async def test_row_of_the_wrong_length_is_the_first_steps_error(lab: MakeLab) -> None:
    spec = """
    steps:
    - name: tfsimple1
    - name: tfsimple2
      inputs: [tfsimple1]
      tensorMap: {tfsimple1.outputs.OUTPUT0: INPUT0, tfsimple1.outputs.OUTPUT1: INPUT1}
    output: {steps: [tfsimple2]}
    """
    it = lab({"tfsimple1": simple, "tfsimple2": simple}, spec)
    outcome = await it.run(ints("INPUT0", *range(20)), ints("INPUT1", *A))
    assert outcome == Failure(
        "tfsimple1 : rpc error: code = InvalidArgument desc = unexpected shape for input 'INPUT0'. "
        "Expected [1,16], got [1,20]"
    )
    assert values(await it.run(*ROW)) == [("OUTPUT0", TWICE), ("OUTPUT1", TWICE)]


def reads(first: str, second: str, step: str, more: str = "") -> str:
    """A pipeline of one step that reads two tensors of other pipelines as INPUT0 and INPUT1."""
    return f"""
    input:
      externalInputs: [{first}, {second}]
      tensorMap: {{{first}: INPUT0, {second}: INPUT1}}
      {more}
    steps: [{{name: {step}}}]
    output: {{steps: [{step}]}}
    """


FAMILY = {
    "first": "steps: [{name: one}]\noutput: {steps: [one]}",
    "extended": reads("first.outputs.OUTPUT0", "first.outputs.OUTPUT1", "two"),
    "extended2": reads("first.outputs.OUTPUT0", "first.outputs.OUTPUT1", "three"),
}
COMBINED = {
    "combined": reads("extended.outputs.OUTPUT0", "extended2.outputs.OUTPUT1", "last"),
    "combined-step": reads("extended.step.two.outputs.OUTPUT0", "extended2.step.three.outputs.OUTPUT0", "last"),
    "combined-trigger": reads(
        "extended.outputs.OUTPUT0", "extended.outputs.OUTPUT1", "last", "externalTriggers: [extended2.outputs]"
    ),
}


@pytest.mark.parametrize("name", COMBINED)
async def test_family_of_pipelines_runs_on_after_the_first_answer(lab: MakeLab, name: str) -> None:
    """Two pipelines extend the first, and a third combines them. The caller gets the first pipeline's answer."""
    models: dict[str, Model] = dict.fromkeys(("one", "two", "three", "last"), simple)
    it = lab(models, *FAMILY.values(), COMBINED[name], names=(*FAMILY, name))
    run = it.start(*ROW, pipeline="first")
    await run.done
    assert values(run.outcome.result()) == [("OUTPUT0", TWICE), ("OUTPUT1", ZERO)]
    sent = {step: [tensor.data for tensor in each.tensors] for step, each in it.calls}
    assert sent["two"] == sent["three"] == [TWICE, ZERO]
    # The sum of 2A and 0, and the difference.
    assert sent["last"] == [TWICE, TWICE]
    assert it.got("last") == [["INPUT0", "INPUT1"]]


async def test_pipeline_without_its_trigger_does_not_start(lab: MakeLab) -> None:
    never = "externalTriggers: [first.outputs.OUTPUT9]"
    later = reads("first.outputs.OUTPUT0", "first.outputs.OUTPUT1", "last", never)
    it = lab({"one": simple, "last": simple}, FAMILY["first"], later, names=("first", "later"))
    run = it.start(*ROW, pipeline="first")
    await run.done
    assert [step for step, _ in it.calls] == ["one"]


async def test_batched_detector_answers_with_the_second_request(lab: MakeLab) -> None:
    spec = """
    steps:
    - name: iris
    - name: drift
      inputs: [p.inputs]
      batch: {size: 2}
    output: {steps: [iris, drift]}
    """
    it = lab({"iris": adds(10), "drift": rows}, spec)
    first = await it.run(ints("INPUT", 1))
    assert isinstance(first, Stall) and "step 'drift' waits for other requests to fill its batch of 2" in first.text
    assert values(await it.run(ints("INPUT", 2))) == [("OUTPUT", [12]), ("is_drift", [2])]


async def test_gathering_detector_delays_no_step_that_does_not_read_it(lab: MakeLab) -> None:
    spec = """
    steps:
    - name: income
    - name: preprocess
    - name: outlier
      inputs: [preprocess]
    - name: drift
      batch: {size: 20}
    output: {steps: [income, outlier.outputs.is_outlier]}
    """
    outlier: Model = lambda sent: message(ints("is_outlier", 0), ints("score", 1))  # noqa: E731
    it = lab({"income": adds(10), "preprocess": adds(0), "outlier": outlier, "drift": rows}, spec)
    for number in range(3):
        answer = values(await it.run(ints("INPUT", number)))
        assert answer == [("OUTPUT", [number + 10]), ("is_outlier", [0])]
    assert it.got("drift") == []


REFUSED = {
    "step named as its pipeline": (
        "iris",
        "steps: [{name: iris}]",
        "pipeline iris must not have a step name with the same name as pipeline name",
    ),
    "empty input": (
        "iris-pipeline",
        "steps: [{name: first}, {name: second, inputs: [first, '']}]",
        "pipeline iris-pipeline step second has an empty input",
    ),
    "empty trigger": (
        "iris-pipeline",
        "steps: [{name: first}, {name: second, inputs: [first]}, {name: third, inputs: [second], triggers: ['']}]",
        "pipeline iris-pipeline step third has an empty trigger",
    ),
    "bad spec": ("iris-pipeline", "steps: [{name: a}, {name: b, input: [a]}]", "unknown field 'spec.steps[1].input'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_faulty_samples_are_refused_in_core_2s_words(tmp_path: Path, case: str) -> None:
    name, spec, sentence = REFUSED[case]
    (tmp_path / "p.yaml").write_text(manifest_text(spec, name), encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_graphs("p.yaml", tmp_path)
    assert sentence in str(refused.value)
