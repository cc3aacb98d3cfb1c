"""Pictures of pipelines have every step and edge of the graph and no others."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from mlserver_llm_cli.pipeline import pipeline
from pipeline_lab import manifest_text
from support import ROOT

DESK = ROOT / "pipelines/support-chat.yaml"
SVG = {"svg": "http://www.w3.org/2000/svg"}
TWO = (
    manifest_text(
        """
        steps: [{name: a}, {name: b, inputs: [a.inputs.x, p], inputsJoinType: outer, tensorMap: {p.inputs.n: m}}]
        output: {steps: [a, b], stepsJoin: any}
        """
    )
    + "---\n"
    + manifest_text(
        """
        input: {externalInputs: [p.step.b, gone], externalTriggers: [p.outputs.x]}
        steps: [{name: c}, {name: d, inputs: [c], triggers: [q.inputs.t]}]
        """,
        "q",
    )
)


def drawn(manifest: Path, form: str) -> Result:
    result = CliRunner().invoke(pipeline, ["graph", str(manifest), "--format", form])
    assert result.exit_code == 0, result.output
    return result


Ends = tuple[str, str]


def read(manifest: Path) -> tuple[dict[str, str], dict[Ends, tuple[str, bool]]]:
    """Labels of the vertices by id; labels of the edges by their ends, and whether the line is broken."""
    root = ElementTree.fromstring(drawn(manifest, "svg").stdout_bytes)
    things: dict[str, str] = {}
    edges: dict[Ends, tuple[str, bool]] = {}
    for group in root.iterfind(".//svg:g[@class]", SVG):
        title = group.findtext("svg:title", "", SVG)
        label = " | ".join("".join(text.itertext()).strip() for text in group.iterfind("svg:text", SVG))
        if group.get("class") == "node":
            things[title] = label
        elif group.get("class") == "edge":
            source, _, target = title.partition("->")
            path = group.find("svg:path", SVG)
            assert path is not None and (source, target) not in edges
            edges[source, target] = label, path.get("stroke-dasharray") is not None
    return things, edges


def test_the_svg_of_the_support_desk_shows_every_step_and_every_edge() -> None:
    things, edges = read(DESK)
    steps = ["remember-user", "route-request", "lookup-issue", "answer-status", "answer-support", "remember-assistant"]
    ids = {name: f"support-chat.step.{name}" for name in steps}
    assert {id: label for id, label in things.items() if ".step." in id} == {ids[name]: name for name in steps}
    assert things["support-chat.inputs"] == "support-chat" and things["support-chat.outputs"] == "answer"
    assert sorted(label for id, label in things.items() if ".join." in id) == ["any", "inner"]
    join = "support-chat.remember-assistant.inputs.join.inputs"
    assert edges == {
        ("support-chat.inputs", ids["remember-user"]): ("", False),
        (ids["remember-user"], ids["route-request"]): ("memory_id | history", False),
        (ids["route-request"], ids["lookup-issue"]): ("issue_number", False),
        (ids["remember-user"], "support-chat.answer-status.inputs.join.inputs"): (
            "memory_id | history | llm_parameters",
            False,
        ),
        (ids["lookup-issue"], "support-chat.answer-status.inputs.join.inputs"): ("issue_number | issue_status", False),
        ("support-chat.answer-status.inputs.join.inputs", ids["answer-status"]): ("", False),
        (ids["route-request"], ids["answer-status"]): ("status", True),
        (ids["remember-user"], ids["answer-support"]): ("memory_id | history | llm_parameters", False),
        (ids["route-request"], ids["answer-support"]): ("support", True),
        (ids["answer-status"], join): ("memory_id | role | content | type", False),
        (ids["answer-support"], join): ("memory_id | role | content | type", False),
        (join, ids["remember-assistant"]): ("", False),
        (ids["remember-assistant"], "support-chat.outputs"): ("", False),
    }


def test_pipelines_of_one_manifest_share_one_picture(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO, encoding="utf-8")
    things, edges = read(tmp_path / "two.yaml")
    assert things["gone.outputs"] == "gone" and things["p.b.inputs.join.inputs"] == "outer"
    assert edges["p.step.a", "p.b.inputs.join.inputs"] == ("sent to a | x", False)
    assert edges["p.inputs", "p.b.inputs.join.inputs"] == ("n → m | …", False)
    assert edges["p.step.b", "q.q.inputs.join.inputs"] == ("", False)
    assert edges["p.outputs", "q.inputs"] == ("x", True)
    assert edges["q.inputs", "q.step.c"] == ("", False)


@pytest.mark.parametrize("name", ["<b>", "a&lt;b", 'a"b', "\\N\\l", "a#b", "é"])
def test_tensor_names_are_escaped_in_pictures(tmp_path: Path, name: str) -> None:
    quoted = f"""steps: [{{name: a}}, {{name: b, inputs: ['a.outputs.{name}']}}]\noutput: {{steps: [b]}}"""
    (tmp_path / "p.yaml").write_text(manifest_text(quoted), encoding="utf-8")
    assert read(tmp_path / "p.yaml")[1]["p.step.a", "p.step.b"] == (name, False)


def test_mermaid_shows_the_same() -> None:
    lines = drawn(DESK, "mermaid").output.splitlines()
    assert lines[0] == "flowchart LR"
    assert '  support-chat_step_route-request -.->|"status"| support-chat_step_answer-status' in lines
    assert '  support-chat_remember-assistant_inputs_join_inputs(("any"))' in lines
    things, edges = read(DESK)
    assert len(lines) == 1 + len(things) + len(edges)
