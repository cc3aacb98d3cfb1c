"""The suite's metrics, as a real MLServer exports them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import httpx2
import pytest
from mlserver import ModelSettings
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from prometheus_client import REGISTRY, Gauge
from prometheus_client.parser import text_string_to_metric_families

from mlserver_chat import Runtime, Settings
from mlserver_chat.metrics import per_model
from support import ROOT, Server, free_ports, outputs, text

MEMORY = {
    "implementation": "mlserver_memory.ConversationalMemory",
    "parameters": {"extra": {"database": "filesys"}},
}
PIPELINE = """
apiVersion: mlops.seldon.io/v1alpha1
kind: Pipeline
metadata: {name: chat}
spec:
  steps: [{name: memory}]
  output: {steps: [memory]}
"""
BROKEN = """
from mlserver_chat import Runtime, Settings

class Broken(Runtime):
    settings_class = Settings

    async def handle(self, request):
        raise RuntimeError("hunter2")
"""
TURN = [text("memory_id", "a"), text("role", "user"), text("content", "hi")]
WRONG = [text("role", "user")]
REACHABLE = "mlserver_memory_store_reachable"


@dataclass
class Scraped:
    """A server and its metrics."""

    server: Server
    port: int

    def values(self, metric: str) -> dict[tuple[str, ...], float]:
        """The samples of a metric by the values of their labels."""
        page = httpx2.get(f"http://127.0.0.1:{self.port}/metrics").text
        return {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == metric
        }

    def names(self) -> set[str]:
        """The metrics of the suite."""
        page = httpx2.get(f"http://127.0.0.1:{self.port}/metrics").text
        samples = [sample.name for family in text_string_to_metric_families(page) for sample in family.samples]
        return {name for name in samples if name.startswith("mlserver_") and not name.endswith("_created")}

    def repository(self, model: str, verb: str) -> None:
        """Load or unload a model as Core 2's agent does."""
        assert httpx2.post(f"{self.server.url}/v2/repository/models/{model}/{verb}", timeout=60).is_success


@pytest.fixture(scope="module")
def scraped(mlserver: Callable[..., Server]) -> Scraped:
    (port,) = free_ports(1)
    pipeline = {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": {"manifest": "chat.yaml"}}}
    models = {"memory": MEMORY, "other": MEMORY, "broken": {"implementation": "broken.Broken"}, "chat": pipeline}
    files = {"chat/chat.yaml": PIPELINE, "broken/broken.py": BROKEN}
    server = mlserver(models, files=files, env={"MLSERVER_METRICS_PORT": str(port)})
    return Scraped(server, port)


def wrong_over_grpc(server: Server) -> None:
    message = pb.ModelInferRequest(
        model_name="memory",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(
                name="role", datatype="BYTES", shape=[1], contents=pb.InferTensorContents(bytes_contents=[b"user"])
            )
        ],
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(message, timeout=30)
        (only,) = stub.ModelStreamInfer(iter([message]), timeout=30)
        assert only.parameters["status"].int64_param == 422


def test_errors_are_counted_by_model_and_status_over_every_protocol(scraped: Scraped) -> None:
    server = scraped.server
    outputs(server.infer("memory", TURN))
    assert scraped.values("mlserver_llm_errors_total") == {}
    assert server.infer("memory", WRONG).status_code == 422
    wrong_over_grpc(server)
    assert server.infer("broken", TURN).status_code == 500
    assert server.infer("nobody", TURN).status_code == 404
    assert scraped.values("mlserver_llm_errors_total") == {("memory", "422"): 3, ("broken", "500"): 1}
    assert server.infer("chat", WRONG).status_code == 400
    assert httpx2.post(f"{server.url}/v2/pipelines/chat/infer", json={"inputs": WRONG}).status_code == 400
    found = {("memory", "422"): 5, ("broken", "500"): 1, ("chat", "400"): 1}
    assert scraped.values("mlserver_llm_errors_total") == found


def test_unloading_a_model_removes_its_own_gauge_value_only(scraped: Scraped) -> None:
    server = scraped.server
    outputs(server.infer("memory", TURN))
    outputs(server.infer("other", TURN))
    assert scraped.values(REACHABLE) == {("memory",): 1, ("other",): 1}
    scraped.repository("other", "load")
    assert scraped.values(REACHABLE) == {("memory",): 1, ("other",): 1}, "reloaded under the same name"
    scraped.repository("other", "unload")
    assert scraped.values(REACHABLE) == {("memory",): 1}
    scraped.repository("other", "load")
    assert scraped.values(REACHABLE) == {("memory",): 1, ("other",): 1}


def test_the_documented_metrics_are_the_exported_ones(scraped: Scraped) -> None:
    scraped.server.infer("memory", WRONG)
    page = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
    documented = {name: labels for name, labels in re.findall(r"^\| `(mlserver_\w+)` \| (.+?) \|", page, re.MULTILINE)}
    assert set(documented) == scraped.names()


async def test_a_failed_reload_leaves_no_gauge_value_of_the_old_model() -> None:
    gauge = per_model(Gauge("test_reload", "A gauge of this test", ["model_name"]))

    class Plain(Runtime[Settings]):
        settings_class = Settings

    settings = ModelSettings(name="reloaded", implementation=Plain)
    first = Plain(settings)
    gauge.labels("reloaded").set(0)
    second = Plain(settings)
    await second.unload()
    assert REGISTRY.get_sample_value("test_reload", {"model_name": "reloaded"}) == 0, "the first is still in use"
    Plain(settings)  # Its load fails: MLServer drops it without unloading it.
    await first.unload()
    assert REGISTRY.get_sample_value("test_reload", {"model_name": "reloaded"}) is None
