"""Alerts and dashboard query only metrics that a running server exports."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import promql_parser
import pytest
import yaml
from mlserver.grpc.dataplane_pb2 import InferTensorContents, ModelInferRequest
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from prometheus_client.parser import text_string_to_metric_families

from kustomize import MANIFESTS
from support import ROOT, free_ports, start_mlserver

MONITORING = MANIFESTS / "components/monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["spec"]["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "support-desk.json").read_text(encoding="utf-8"))
TARGETS: list[dict[str, Any]] = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}

OF_THE_TARGET = {"namespace", "service", "pod", "container", "endpoint", "instance", "job", "seldon_server_name"}
"""Labels that Prometheus adds: those of the operator for a ServiceMonitor, and its `podTargetLabels`."""

Samples = dict[str, list[dict[str, str]]]


def message(**tensors: str) -> list[ModelInferRequest.InferInputTensor]:
    return [
        ModelInferRequest.InferInputTensor(
            name=name, datatype="BYTES", shape=[1], contents=InferTensorContents(bytes_contents=[value.encode()])
        )
        for name, value in tensors.items()
    ]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Return the labels of all samples by metric, after a good and a failed call of a memory model by Core 2."""
    (port,) = free_ports(1)
    tmp = tmp_path_factory.mktemp("monitoring")
    # As on the Servers. With worker processes, MLServer exports no metrics of its main process.
    environment = {"MLSERVER_METRICS_PORT": str(port), "MLSERVER_PARALLEL_WORKERS": "0"}
    server = start_mlserver(ROOT / "models/remember-user", tmp, environment)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            infer = GRPCInferenceServiceStub(channel).ModelInfer
            whole = message(memory_id="a", role="user", content="hi", type="text")
            infer(ModelInferRequest(model_name="remember-user", inputs=whole))
            with pytest.raises(grpc.RpcError):
                infer(ModelInferRequest(model_name="remember-user", inputs=message(role="user")))
        page = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    finally:
        server.stop()
    samples: Samples = {"up": [{}]}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(dict(sample.labels))
    return samples


def parsed(query: str) -> Any:
    return promql_parser.parse(query.replace("$__rate_interval", "5m"))


def parts(expression: Any) -> Iterator[Any]:
    """Yield an expression and all expressions inside it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if getattr(expression, name, None) is not None:
            yield from parts(getattr(expression, name))
    for argument in getattr(expression, "args", None) or ():
        yield from parts(argument)


def selectors(query: str) -> list[Any]:
    return [each for each in parts(parsed(query)) if isinstance(each, promql_parser.VectorSelector)]


@pytest.mark.parametrize("name", QUERIES)
def test_every_metric_and_label_of_a_query_is_exported(scraped: Samples, name: str) -> None:
    found = selectors(QUERIES[name])
    assert found
    known = set(OF_THE_TARGET) | {"le"}
    for selector in found:
        assert selector.name in scraped, f"no server exports {selector.name}"
        labels = {label for sample in scraped[selector.name] for label in sample}
        known |= labels
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels | OF_THE_TARGET
    for part in parts(parsed(QUERIES[name])):
        if isinstance(part, promql_parser.AggregateExpr):
            assert part.modifier is not None and set(part.modifier.labels) <= known


@pytest.mark.parametrize("name", QUERIES)
def test_every_label_value_in_a_query_is_exported(scraped: Samples, name: str) -> None:
    for selector in selectors(QUERIES[name]):
        wanted = [each for each in selector.matchers.matchers if each.name not in OF_THE_TARGET]
        assert all(each.op == promql_parser.MatchOp.Equal for each in wanted)
        assert any(all(sample[each.name] == each.value for each in wanted) for sample in scraped[selector.name])


def test_the_check_finds_a_metric_that_is_not_exported(scraped: Samples) -> None:
    (selector,) = selectors("rate(mlserver_memory_appends_total[5m])")
    assert selector.name not in scraped


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_the_text_of_an_alert_uses_labels_that_it_has(rule: dict[str, Any]) -> None:
    expression = parsed(rule["expr"])
    # The left side of the comparison; of a quotient, its dividend.
    while isinstance(expression, promql_parser.BinaryExpr | promql_parser.ParenExpr):
        expression = expression.lhs if isinstance(expression, promql_parser.BinaryExpr) else expression.expr
    labels = OF_THE_TARGET if isinstance(expression, promql_parser.VectorSelector) else set(expression.modifier.labels)
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


def test_panels_do_not_overlap_and_name_their_series() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) and all(panel["description"] for panel in DASHBOARD["panels"])
    for target in TARGETS:
        aggregates = [each for each in parts(parsed(target["expr"])) if isinstance(each, promql_parser.AggregateExpr)]
        labels = set(aggregates[0].modifier.labels) if aggregates else OF_THE_TARGET
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels


def test_queries_drop_the_generation_of_a_model() -> None:
    """Each query by `model` removes the generation that Core 2 appends to the name."""
    pattern = re.compile(
        r'label_replace\(rate\(model_infer_\w+(\{[^}]*\})?\[[^]]+\]\), "model", "\$1", "model", "([^"]+)"\)'
    )
    for query in QUERIES.values():
        found = list(pattern.finditer(query))
        assert len(found) == query.count("model_infer_request")
        for each in found:
            assert re.fullmatch(each[2], "answer-status_12")[1] == "answer-status"  # type: ignore[index]


def test_queries_select_the_targets_of_the_monitor() -> None:
    """Prometheus takes the job from the name of the Service, and other labels from the pods."""
    service, monitor = yaml.safe_load_all((MONITORING / "servicemonitor.yaml").read_text(encoding="utf-8"))
    of_pods = {label.replace("-", "_") for label in monitor["spec"]["podTargetLabels"]}
    assert OF_THE_TARGET - {"namespace", "service", "pod", "container", "endpoint", "instance", "job"} == of_pods
    asked = [each for query in QUERIES.values() for selector in selectors(query) for each in selector.matchers.matchers]
    jobs = {each.value for each in asked if each.name == "job"}
    assert jobs == {service["metadata"]["name"]} and "jobLabel" not in monitor["spec"]


def test_the_sidecar_gets_the_dashboard_file_unchanged() -> None:
    assert Path(MONITORING / "kustomization.yaml").read_text(encoding="utf-8").count("support-desk.json") == 1
