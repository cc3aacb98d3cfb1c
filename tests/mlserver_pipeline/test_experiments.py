"""Experiments, and the addresses of the mesh."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from textwrap import indent

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from mlserver_chat import SettingsError
from mlserver_pipeline.api.mesh import Mesh, MeshRoute, Pipelines
from mlserver_pipeline.calls.split import SplitSteps
from mlserver_pipeline.engine.messages import StepMessage
from mlserver_pipeline.engine.streaming import Chunk
from mlserver_pipeline.manifests.experiments import ROUTE, Experiment, read_experiments
from pipeline_lab import ints, manifest_text, message
from support import Server, text


def experiment_text(spec: str, name: str = "e") -> str:
    head = f"apiVersion: mlops.seldon.io/v1alpha1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec:\n"
    return head + indent(spec, "  ") + "\n"


def experiment(folder: Path, *specs: str) -> list[Experiment]:
    path = folder / "e.yaml"
    path.write_text("---\n".join(experiment_text(spec, f"e{n}") for n, spec in enumerate(specs)), encoding="utf-8")
    return read_experiments([path])


HALVES = "default: a\ncandidates: [{name: a, weight: 30}, {name: b, weight: 10}]"
PIPELINES = "default: p\nresourceType: pipeline\ncandidates: [{name: p, weight: 1}, {name: q, weight: 1}]"


def test_candidates_are_chosen_by_weight_or_by_the_route_header(tmp_path: Path) -> None:
    (it,) = experiment(tmp_path, HALVES)
    assert [it.choose("", lambda at=at: at) for at in (0.0, 0.74, 0.76, 0.999)] == ["a", "a", "b", "b"]
    assert it.choose(":b_1:", lambda: 0.0) == "b"
    assert it.choose(":c_1: :b_1: :p.pipeline:", lambda: 0.0) == "b"


def test_mirror_gets_its_percentage_of_all_requests(tmp_path: Path) -> None:
    mirrored, alone = experiment(tmp_path, f"{HALVES}\nmirror: {{name: m, percent: 25}}", PIPELINES)
    assert [mirrored.is_mirrored(lambda at=at: at) for at in (0.0, 0.249, 0.25, 0.999)] == [True, True, False, False]
    assert not alone.is_mirrored(lambda: 0.0)


@pytest.mark.parametrize(("drawn", "mirror"), [(0.4, "m.pipeline"), (0.6, "")])
def test_mirror_of_pipelines_is_a_pipeline(tmp_path: Path, drawn: float, mirror: str) -> None:
    mesh = Mesh(lambda: drawn)
    spec = f"{PIPELINES}\nmirror: {{name: m, percent: 50}}"
    mesh.members.append(Pipelines("pipes", {"p", "q", "m"}, experiment(tmp_path, spec)))
    assert mesh.choose("p.pipeline", "").mirror == mirror
    assert mesh.choose("q.pipeline", "").mirror == "", "only the default's address is split"


REFUSED = {
    "default/0": (
        ("default: c\ncandidates: [{name: a, weight: 1}]",),
        "default model/pipeline c not found in experiment e0 candidates",
    ),
    "nobody": (("candidates: []",), "experiment e0 has no candidates or mirror"),
    "twice": (
        ("candidates: [{name: a, weight: 1}]\nmirror: {name: a, percent: 1}",),
        "each candidate and mirror must be unique but found resource a duplicated in experiment e0",
    ),
    "baseline": ((HALVES, HALVES), "Resource a already in experiment e0 as a baseline."),
    "only a mirror": (("candidates: []\nmirror: {name: a, percent: 1}",), "has only a mirror"),
    "field": (
        ("candidates: [{name: a, weigth: 1}]",),
        "unknown field 'spec.candidates[0].weigth'; did you mean 'weight'?",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_faulty_experiment_is_refused_in_core_2s_words(tmp_path: Path, case: str) -> None:
    specs, reason = REFUSED[case]
    with pytest.raises(SettingsError) as refused:
        experiment(tmp_path, *specs)
    assert reason in str(refused.value) and str(refused.value).startswith("e.yaml:")


async def test_default_step_is_split_and_answers_with_its_route(tmp_path: Path) -> None:
    called: list[str] = []

    async def call(step: str, sent: StepMessage, headers: Mapping[str, str]) -> tuple[StepMessage, Mapping[str, str]]:
        called.append(step)
        assert ROUTE not in headers
        if step == "m":
            raise RuntimeError("no caller sees a mirror's error")
        return sent, {"x-own": "1"}

    async def stream(step: str, sent: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        for _ in range(2):
            yield await call(step, sent, headers)

    steps = SplitSteps(experiment(tmp_path, f"{HALVES}\nmirror: {{name: m, percent: 100}}"), call, stream)
    _, headers = await steps("a", message(ints("i", 1)), {ROUTE: ":z_1: :b_1:"})
    assert headers == {"x-own": "1", ROUTE: ":z_1: :b_1:"}
    for _ in range(200):
        _, headers = await steps("a", message(ints("i", 1)), {ROUTE: ":z_1:"})
        assert headers[ROUTE] in (":z_1: :a_1:", ":z_1: :b_1:")
    await asyncio.sleep(0)
    share = Counter(called)
    assert share["a"] > share["b"] > 20 and share["m"] == 201
    _, headers = await steps("other", message(ints("i", 1)), {})
    assert called[-1] == "other" and ROUTE not in headers
    streamed = [added async for _, added in steps.stream("a", message(ints("i", 1)), {ROUTE: ":b_1:"})]
    assert streamed == [{"x-own": "1", ROUTE: ":b_1:"}] * 2 and called[-2:] == ["b", "b"]


ADDRESSES = {
    # Path and header `seldon-model`, and the target (None if MLServer handles the path itself).
    ("/v2/models/p/infer", ""): None,
    ("/v2/models/p/infer", "p.pipeline"): "/v2/pipelines/p/infer",
    ("/v2/models/anything/infer", "p.pipeline"): "/v2/pipelines/p/infer",
    ("/v2/models/p.pipeline/infer", ""): "/v2/pipelines/p/infer",
    ("/v2/pipelines/p/infer", "p.pipeline"): None,
    ("/v2/pipelines/p/infer", ""): None,
    ("/v2/pipelines/elsewhere/infer", ""): None,
    ("/v2/models/x/infer", "m"): "/v2/models/m/infer",
    ("/v2/models/x/infer", "m.model"): "/v2/models/m/infer",
    ("/v2/models/x/infer_stream", "m"): "/v2/models/m/infer_stream",
    # The header wins over the path, also with an unknown name.
    ("/v2/pipelines/p/infer", "q.pipeline"): "/v2/pipelines/q/infer",
    ("/v2/pipelines/p/infer", "m"): "/v2/models/m/infer",
    ("/v2/models/p/infer", "gone.pipeline"): "/v2/pipelines/gone/infer",
    ("/v2/models/p/infer", "gone.experiment"): "/v2/models/gone.experiment/infer",
    # A pipeline streams at the address of its model.
    ("/v2/pipelines/q/infer_stream", ""): "/v2/models/pipes/infer_stream",
    ("/v2/models/pipes/infer_stream", "q.pipeline"): "/v2/models/pipes/infer_stream",
    # Core 2's agent adds a number to the model's name.
    ("/v2/models/m_3/infer", "m"): None,
    ("/v2/models/x/ready", "m"): None,
    ("/v2/repository/index", "m"): None,
    ("/v2/models/a/infer", ""): "/v2/models/b/infer",
    ("/v2/models/a/infer_stream", ""): "/v2/models/b/infer_stream",
    ("/v2/models/e0.experiment/infer", ""): "/v2/models/b/infer",
    ("/v2/models/x/infer", "e0.experiment"): "/v2/models/b/infer",
    ("/v2/pipelines/q/infer", ""): None,
    ("/v2/pipelines/x/infer", "e1.experiment"): "/v2/pipelines/q2/infer",
    ("/v2/pipelines/d/infer", ""): "/v2/pipelines/q2/infer",
}


@pytest.mark.parametrize(("path", "header"), ADDRESSES)
def test_addresses_lead_where_core_2s_mesh_sends_them(tmp_path: Path, path: str, header: str) -> None:
    of_pipelines = "default: d\nresourceType: pipeline\ncandidates: [{name: d, weight: 1}, {name: q2, weight: 1}]"

    async def nowhere(*_: object) -> None:
        raise AssertionError

    mesh = Mesh(lambda: 0.99)
    mesh.members.append(Pipelines("pipes", {"p", "q"}, experiment(tmp_path, HALVES, of_pipelines)))
    target = MeshRoute(nowhere, mesh).target(path, header, "")
    assert (target.path if target else None) == ADDRESSES[path, header]


WORDS = """
import os
from pathlib import Path
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse

class Say(MLModel):
    async def predict(self, payload):
        if self.name == "shadow":
            Path(os.environ["SEEN"]).touch()
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("said", [self.name])])
"""


@pytest.fixture(scope="module")
def server(mlserver: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("experiments")
    halves = "default: a\ncandidates: [{name: a, weight: 1}, {name: b, weight: 1}]"
    manifests = [
        manifest_text("steps: [{name: a}]\noutput: {steps: [a]}", "p"),
        manifest_text("steps: [{name: c}]\noutput: {steps: [c]}", "q"),
        experiment_text(f"{halves}\nmirror: {{name: shadow, percent: 100}}", "models"),
        experiment_text(PIPELINES, "pipes"),
    ]
    models: dict[str, dict[str, object]] = {name: {"implementation": "words.Say"} for name in ("a", "b", "c", "shadow")}
    models["p"] = {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": {"manifest": "all.yaml"}}}
    files = {f"{name}/words.py": WORDS for name in models} | {"p/all.yaml": "---\n".join(manifests)}
    yield mlserver(models, files=files, env={"SEEN": str(folder / "seen")}), folder / "seen"


def ask(server: Server, path: str, **headers: str) -> tuple[str, str]:
    """The answer and its route."""
    answer = httpx2.post(f"{server.url}{path}", json={"inputs": [text("i", "x")]}, headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"][0], answer.headers.get(ROUTE, "")


def test_curl_of_core_2s_documentation_works(server: tuple[Server, Path]) -> None:
    body = json.dumps({"inputs": [{"name": "i", "data": ["x"], "datatype": "BYTES", "shape": [1]}]})
    headers = {"Content-Type": "application/json", "Seldon-Model": "q.pipeline"}
    answer = httpx2.post(f"{server[0].url}/v2/models/q/infer", content=body, headers=headers)
    assert answer.json()["model_name"] == "" and "id" not in answer.json()
    assert answer.json()["outputs"][0]["data"] == ["c"]
    assert answer.headers[ROUTE] == ":q.pipeline:"


def test_models_and_pipelines_get_their_share_and_routes_stick(server: tuple[Server, Path]) -> None:
    direct = {ask(server[0], "/v2/models/a/infer") for _ in range(40)}
    assert direct == {("a", ":a_1:"), ("b", ":b_1:")}
    pipes = {ask(server[0], "/v2/pipelines/p/infer") for _ in range(40)}
    assert pipes == {("a", ":a_1: :p.pipeline:"), ("b", ":b_1: :p.pipeline:"), ("c", ":q.pipeline:")}
    again = {ask(server[0], "/v2/pipelines/p/infer", **{ROUTE: ":b_1: :p.pipeline:"}) for _ in range(10)}
    assert again == {("b", ":b_1: :p.pipeline:")}
    named = {ask(server[0], "/v2/models/models.experiment/infer", **{ROUTE: ":a_1:"}) for _ in range(5)}
    assert named == {("a", ":a_1:")}


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_mirror_gets_the_request_and_its_answer_is_dropped(server: tuple[Server, Path], transport: str) -> None:
    server[1].unlink(missing_ok=True)
    said, _ = ask(server[0], "/v2/models/a/infer") if transport == "rest" else grpc_says(server[0], "a")
    assert said in ("a", "b")
    deadline = time.monotonic() + 5
    while not server[1].exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def grpc_says(server: Server, model: str, **metadata: str) -> tuple[str, str]:
    """The answer over gRPC and its route."""
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="i", shape=[1], datatype="BYTES", contents=pb.InferTensorContents(bytes_contents=[b"x"])
    )
    request = pb.ModelInferRequest(model_name=model, inputs=[tensor])
    sent = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer, call = stub.ModelInfer.with_call(request, metadata=sent)
        (streamed,) = stub.ModelStreamInfer(iter([request]), metadata=[*sent, (ROUTE, ":b_1: :q.pipeline:")])
    assert streamed.outputs[0].contents.bytes_contents[0] in (b"a", b"b", b"c")
    route = dict(tuple(item) for item in call.trailing_metadata()).get(ROUTE, "")
    return answer.outputs[0].contents.bytes_contents[0].decode(), route


@pytest.mark.parametrize(
    ("model", "metadata", "said"),
    [
        ("p", {}, {("a", ":a_1:"), ("b", ":b_1:")}),
        ("q.pipeline", {}, {("c", ":q.pipeline:")}),
        ("p", {"seldon_model": "q.pipeline"}, {("c", ":q.pipeline:")}),
        ("", {"seldon_model": "q.pipeline"}, {("c", ":q.pipeline:")}),
        ("x", {"seldon_model": "c"}, {("c", ":c_1:")}),
        ("c", {}, {("c", "")}),
        ("a", {}, {("a", ":a_1:"), ("b", ":b_1:")}),
        ("models.experiment", {}, {("a", ":a_1:"), ("b", ":b_1:")}),
        ("x", {"seldon_model": "pipes.experiment", "x_seldon_route": ":q.pipeline:"}, {("c", ":q.pipeline:")}),
        ("a", {"x_seldon_route": ":b_1:"}, {("b", ":b_1:")}),
    ],
)
def test_grpc_names_of_core_2_lead_to_the_same_targets(
    server: tuple[Server, Path], model: str, metadata: dict[str, str], said: set[tuple[str, str]]
) -> None:
    assert {grpc_says(server[0], model, **metadata) for _ in range(20 if len(said) > 1 else 2)} == said


@pytest.mark.parametrize("name", ["gone.pipeline", "gone.experiment", "gone"])
def test_unknown_name_in_the_header_is_not_found_despite_the_path(server: tuple[Server, Path], name: str) -> None:
    for model, metadata in ((name, {}), ("c", {"seldon_model": name})):
        with pytest.raises(grpc.RpcError) as refused:
            grpc_says(server[0], model, **metadata)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    answer = httpx2.post(
        f"{server[0].url}/v2/models/c/infer", json={"inputs": [text("i", "x")]}, headers={"seldon-model": name}
    )
    assert answer.status_code == 404


def test_pipeline_is_ready_under_its_own_name_over_grpc(server: tuple[Server, Path]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server[0].grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(pb.ModelReadyRequest(name="q")).ready
        assert stub.ServerReady(pb.ServerReadyRequest()).ready


def test_pipeline_is_ready_when_all_candidates_are(server: tuple[Server, Path]) -> None:
    for verb, status in (("unload", 424), ("load", 200)):
        assert httpx2.post(f"{server[0].url}/v2/repository/models/b/{verb}", timeout=20).status_code == 200
        assert httpx2.get(f"{server[0].url}/v2/pipelines/p/ready").status_code == status
        assert httpx2.get(f"{server[0].url}/v2/pipelines/q/ready").status_code == 200


def test_unload_removes_the_addresses(server: tuple[Server, Path]) -> None:
    for verb, status in (("load", 200), ("unload", 404)):
        assert httpx2.post(f"{server[0].url}/v2/repository/models/p/{verb}", timeout=20).status_code == 200
        answer = httpx2.post(
            f"{server[0].url}/v2/models/x/infer",
            json={"inputs": [text("i", "x")]},
            headers={"seldon-model": "q.pipeline"},
        )
        assert answer.status_code == status
    assert ask(server[0], "/v2/models/a/infer") == ("a", "")
    assert grpc_says(server[0], "a") == ("a", "")
    with pytest.raises(grpc.RpcError):
        grpc_says(server[0], "q.pipeline")
