"""References: the topics that they name, and how they form sources."""

import pytest

from mlserver_pipeline.manifests.references import (
    Topic,
    group,
    parse,
    parse_external,
    with_default,
    with_external_default,
)

DEFAULTS = {
    "a": "a.outputs",
    "a.outputs": "a.outputs",
    "a.inputs": "a.inputs",
    "a.inputs.t1": "a.inputs.t1",
    "p": "p.inputs",
    "p.outputs": "p.outputs",
    "p.inputs.t1": "p.inputs.t1",
}


@pytest.mark.parametrize("reference", DEFAULTS)
def test_bare_name_means_outputs_of_a_step_or_inputs_of_the_pipeline(reference: str) -> None:
    assert with_default(reference, "p") == DEFAULTS[reference]


EXTERNAL_DEFAULTS = {
    "q": "q.outputs",
    "q.inputs": "q.inputs",
    "q.outputs.t": "q.outputs.t",
    "q.step.m": "q.step.m.outputs",
    "q.step.m.inputs": "q.step.m.inputs",
    "q.step.m.outputs.t": "q.step.m.outputs.t",
}


@pytest.mark.parametrize("reference", EXTERNAL_DEFAULTS)
def test_bare_external_name_means_its_outputs(reference: str) -> None:
    assert with_external_default(reference) == EXTERNAL_DEFAULTS[reference]


@pytest.mark.parametrize(
    ("reference", "topic", "tensor"),
    [
        ("q.outputs", Topic("q", "q", "outputs"), None),
        ("q.inputs.t", Topic("q", "q", "inputs"), "t"),
        ("q.step.m.outputs", Topic("q", "m", "outputs"), None),
        ("q.step.m.inputs.t", Topic("q", "m", "inputs"), "t"),
    ],
)
def test_external_reference_names_a_topic_of_the_other_pipeline(
    reference: str, topic: Topic, tensor: str | None
) -> None:
    assert parse_external(reference) == (topic, tensor)


# References of a step, and its sources: topics with the names of the tensors to read (none for all).
GROUPS: dict[str, tuple[list[str], list[tuple[str, tuple[str, ...]]]]] = {
    "one topic": (["a.outputs"], [("a.outputs", ())]),
    "one tensor": (["a.outputs.x"], [("a.outputs", ("x",))]),
    "two tensors of a topic": (["a.outputs.x", "a.outputs.y"], [("a.outputs", ("x", "y"))]),
    "a tensor twice": (["a.outputs.x", "a.outputs.x"], [("a.outputs", ("x",))]),
    "the topic first": (["a.outputs", "a.outputs.x"], [("a.outputs", ("x",))]),
    "the topic last": (["a.outputs.x", "a.outputs"], [("a.outputs", ("x",))]),
    "the topic twice": (["a.outputs", "a.outputs"], [("a.outputs", ())]),
    "both sides of a step": (["a.outputs", "a.inputs"], [("a.outputs", ()), ("a.inputs", ())]),
    "the request beside a step": (["p.inputs", "a.outputs"], [("p.inputs", ()), ("a.outputs", ())]),
    "in order of first appearance": (
        ["b.outputs.y", "a.outputs.x", "b.outputs.z", "c.inputs", "a.outputs"],
        [("b.outputs", ("y", "z")), ("a.outputs", ("x",)), ("c.inputs", ())],
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_references_to_one_topic_form_one_source(case: str) -> None:
    references, expected = GROUPS[case]
    sources = group([parse(reference, "p") for reference in references])
    assert [(str(source.topic), source.tensors) for source in sources] == expected
    assert {source.topic.pipeline for source in sources} == {"p"}


def test_steps_of_the_same_name_in_two_pipelines_are_two_sources() -> None:
    sources = group([parse_external(reference) for reference in ("q.step.m.outputs", "r.step.m.outputs.t")])
    assert [(source.topic.pipeline, source.tensors) for source in sources] == [("q", ()), ("r", ("t",))]
