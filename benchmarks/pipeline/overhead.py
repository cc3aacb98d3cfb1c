"""Measures what the pipeline runner costs for each step in process, with a chain of models that return their inputs.

`python benchmarks/pipeline/overhead.py` prints milliseconds for a step as JSON: for the runner (including model and
data plane), for MLServer's data plane alone, and for MLServer's gRPC converters with the data plane. The last is the
cost of a call from outside without the network.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from mlserver import MLModel, ModelSettings, Settings
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.handlers import DataPlane
from mlserver.registry import MultiModelRegistry
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from mlserver_chat.tensors import text_input
from mlserver_pipeline.calls.local import SameProcessSteps
from mlserver_pipeline.calls.timed import TimedSteps
from mlserver_pipeline.calls.wire import message_from_request, request_for_step
from mlserver_pipeline.engine.engine import Engine
from mlserver_pipeline.engine.runner import Runner
from mlserver_pipeline.manifests.loading import load_graphs

STEPS = 10
ROUNDS = 300
TENSORS = ("memory_id", "role", "content", "history")
HEADERS = {"x-request-id": "benchmark"}


class Nothing(MLModel):
    """Returns its inputs."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput.model_construct(
                name=tensor.name, shape=tensor.shape, datatype="BYTES", data=tensor.data, parameters=tensor.parameters
            )
            for tensor in payload.inputs
        ]
        return InferenceResponse.model_construct(model_name=self.name, outputs=outputs)


def manifest(folder: Path) -> str:
    steps = [f"  - {{name: s{n}, inputs: [{f's{n - 1}' if n else 'bench'}]}}" for n in range(STEPS)]
    head = "apiVersion: mlops.seldon.io/v1alpha1\nkind: Pipeline\nmetadata: {name: bench}\nspec:\n  steps:\n"
    (folder / "bench.yaml").write_text(f"{head}{chr(10).join(steps)}\n  output: {{steps: [s{STEPS - 1}]}}\n")
    return "bench.yaml"


async def milliseconds(work: Callable[[], Awaitable[object]], steps: int) -> float:
    """Return the median of the rounds, for one step."""
    samples: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await work()
        samples.append((time.perf_counter() - began) * 1000 / steps)
    return statistics.median(samples)


async def main() -> None:
    registry = MultiModelRegistry()
    for number in range(STEPS):
        await registry.load(ModelSettings(name=f"s{number}", implementation=Nothing))
    data_plane = DataPlane(Settings(), registry)
    calls = TimedSteps(SameProcessSteps(data_plane), 60)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Engine(load_graphs(manifest(Path(folder)), Path(folder)), calls))
    message = message_from_request(InferenceRequest(inputs=[text_input(name, ["some text"]) for name in TENSORS]))
    sent = ModelInferRequestConverter.from_types(request_for_step(message, {}), "s0")

    async def alone() -> None:
        await data_plane.infer(request_for_step(message, HEADERS), "s0")

    async def converted() -> None:
        request = ModelInferRequestConverter.to_types(sent)
        ModelInferResponseConverter.from_types(await data_plane.infer(request, "s0"))

    rows = {
        "runner": await milliseconds(lambda: runner.answer("bench", message, HEADERS), STEPS),
        "data plane alone": await milliseconds(alone, 1),
        "gRPC converters and data plane": await milliseconds(converted, 1),
    }
    print(json.dumps(rows))


if __name__ == "__main__":
    uvloop.run(main())
