"""Pipelines in a real MLServer, over models that aren't runtimes of this suite."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from mlserver_chat import NotReachable, SettingsError, UpstreamFailed
from mlserver_chat.requests.identity import carried_headers
from mlserver_pipeline.calls.remote import RemoteServer, open_server, remote_steps
from mlserver_pipeline.engine.errors import step_error
from mlserver_pipeline.engine.messages import StepMessage, Tensor
from pipeline_lab import manifest_text
from support import Server, free_ports, outputs, start_mlserver, text

(METRICS_PORT,) = free_ports(1)

MODELS = '''
import asyncio
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import MLServerError
from mlserver.types import InferenceResponse, Parameters, ResponseOutput


class Upper(MLModel):
    """Answers its text in upper case, as `text` and under its first letter, and the type and headers as `seen`."""

    async def load(self):
        await asyncio.sleep(0.5)
        return True

    async def predict(self, payload):
        element = payload.inputs[0].data.root[0]
        word = element if isinstance(element, str) else element.decode()
        if word == "fail":
            raise MLServerError("no such word", 422)
        if word == "crash":
            raise RuntimeError("crashed")
        came = payload.parameters.headers
        seen = f"{type(element).__name__} {came.get('x-color')} {came.get('x-request-id')}"
        word = word.upper()
        outputs = [StringCodec.encode_output(name, [word]) for name in ("text", word[0].lower())]
        outputs.append(StringCodec.encode_output("seen", [seen]))
        parameters = Parameters(headers={"x-upper": "yes", "not-passed": "1"}, tone="loud")
        return InferenceResponse(model_name=self.name, outputs=outputs, parameters=parameters)


class Raw(MLModel):
    async def predict(self, payload):
        size = len(payload.inputs[0].data.root[0])
        return InferenceResponse(model_name=self.name, outputs=[
            ResponseOutput(name="raw", datatype="BYTES", shape=[1], data=[b"\\x01\\x02"]),
            ResponseOutput(name="size", datatype="FP32", shape=[1, 1], data=[size + 0.5]),
        ])
'''


def build(folder: Path) -> Path:
    """Write a repository with models, and a pipeline whose manifest lies outside the repository."""
    (folder / "manifests").mkdir(parents=True)
    only_raw = "steps: [{name: upper}, {name: raw, inputs: [upper.outputs.text]}]\noutput: {steps: [raw]}"
    joined = """
    steps:
    - name: upper
    - name: vowel
      inputs: [upper.outputs.text]
      triggers: [upper.outputs.a]
    output:
      steps: [upper.outputs.seen, vowel]
    """
    (folder / "manifests/chain.yaml").write_text(manifest_text(only_raw, "chain"), encoding="utf-8")
    (folder / "manifests/more.yaml").write_text(manifest_text(joined, "joined"), encoding="utf-8")
    models = folder / "models"
    settings: dict[str, dict[str, Any]] = {
        "chain": {
            "implementation": "mlserver_pipeline.Pipeline",
            "parameters": {"extra": {"manifest": ["../../manifests/chain.yaml", "../../manifests/more.yaml"]}},
        },
        "upper": {"implementation": "words.Upper"},
        "vowel": {"implementation": "words.Raw"},
        "raw": {"implementation": "words.Raw"},
    }
    for name, content in settings.items():
        (models / name).mkdir(parents=True)
        (models / name / "model-settings.json").write_text(json.dumps({"name": name} | content), encoding="utf-8")
        (models / name / "words.py").write_text(MODELS, encoding="utf-8")
    (models / "settings.json").write_text('{"parallel_workers": 0, "debug": false}', encoding="utf-8")
    return models


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tmp = tmp_path_factory.mktemp("pipelines")
    server = start_mlserver(build(tmp), tmp, {"MLSERVER_METRICS_PORT": str(METRICS_PORT)})
    yield server
    server.stop()


def gateway(server: Server, pipeline: str, content: Any, **headers: str) -> httpx2.Response:
    body = content if isinstance(content, bytes) else json.dumps({"inputs": content}).encode()
    return httpx2.post(f"{server.url}/v2/pipelines/{pipeline}/infer", content=body, headers=headers, timeout=20)


def test_pipeline_address_answers_as_core_2s_gateway(server: Server) -> None:
    answer = gateway(server, "chain", [text("word", "hello")], **{"x-request-id": "mine", "x-color": "red"})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "mine" and answer.headers["x-upper"] == "yes"
    assert "not-passed" not in answer.headers
    assert answer.text == (
        '{"model_name":"","outputs":[{"data":["AQI="],"name":"raw","shape":[1],"datatype":"BYTES"},'
        '{"data":[5.5],"name":"size","shape":[1,1],"datatype":"FP32"}]}'
    )


def test_model_address_answers_as_mlserver(server: Server) -> None:
    answer = server.infer("chain", [text("word", "hello")], id="one", headers={"x-color": "red"})
    assert outputs(answer)["size"] == [5.5]
    content = answer.json()
    assert content["model_name"] == "chain" and content["id"] == "one"
    assert answer.headers["x-request-id"] == "one"


def test_step_error_is_400_with_the_steps_name_at_both_addresses(server: Server) -> None:
    for word, code in (("fail", "FailedPrecondition desc = no such word"), ("crash", "Internal desc = crashed")):
        sentence = f"upper : rpc error: code = {code}"
        answer = gateway(server, "chain", [text("word", word)], **{"x-request-id": "mine"})
        assert (answer.status_code, answer.text, answer.headers["x-request-id"]) == (400, sentence, "mine")
        as_model = server.infer("chain", [text("word", word)])
        assert (as_model.status_code, as_model.json()) == (400, {"error": sentence})


def test_stalled_branch_is_504_and_names_the_step_and_what_it_lacked(server: Server) -> None:
    answer = gateway(server, "joined", [text("word", "hello")])
    assert answer.status_code == 504
    assert "step 'vowel' got upper.outputs.text and waits for its trigger upper.outputs.a" in answer.text
    both = gateway(server, "joined", [text("word", "any")])
    assert [tensor["name"] for tensor in both.json()["outputs"]] == ["seen", "raw", "size"]


def test_steps_get_bytes_and_the_callers_headers_and_a_request_id(server: Server) -> None:
    answer = gateway(server, "joined", [text("word", "any")], **{"x-color": "blue"})
    kind, color, identity = answer.json()["outputs"][0]["data"][0].split()
    assert (kind, color) == ("bytes", "blue")
    assert identity == answer.headers["x-request-id"] and len(identity) >= 16


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"inputs": 1}', b'{"inputs": [{"name": "x"}]}'])
def test_bad_body_is_400_with_a_sentence(server: Server, body: bytes) -> None:
    answer = gateway(server, "chain", body)
    assert answer.status_code == 400 and answer.text


@pytest.mark.parametrize("body", [b"{}", b"", b"\x1f\x8b\x08cut"])
def test_body_that_is_not_gzip_as_declared_is_400(server: Server, body: bytes) -> None:
    answer = gateway(server, "chain", body, **{"content-encoding": "gzip"})
    assert answer.status_code == 400 and "not" in answer.text
    packed = gzip.compress(json.dumps({"inputs": [text("word", "hello")]}).encode())
    assert gateway(server, "chain", packed, **{"content-encoding": "gzip"}).status_code == 200


def test_trace_shows_inputs_outputs_and_reason_of_each_step(server: Server) -> None:
    answer = gateway(server, "joined", [text("word", "any")], **{"x-pipeline-trace": "1"})
    (trace,) = [tensor for tensor in answer.json()["outputs"] if tensor["name"] == "trace"]
    upper, vowel = [json.loads(row) for row in trace["data"]]
    assert upper["step"] == "upper" and upper["arrived"] == {"joined.inputs": [{"word": ["any"]}]}
    assert upper["left"][0]["text"] == ["ANY"] and upper["parameters"] == {"tone": "loud"} and upper["ms"] > 0
    assert vowel["arrived"] == {"upper.outputs.text": [{"text": ["ANY"]}], "upper.outputs.a": [{"a": ["ANY"]}]}
    assert vowel["why"] == "fired: upper.outputs.text and upper.outputs.a came"


def test_grpc_gets_the_same_answer_and_error(server: Server) -> None:
    def request(word: bytes) -> pb.ModelInferRequest:
        contents = pb.InferTensorContents(bytes_contents=[word])
        tensor = pb.ModelInferRequest.InferInputTensor(name="word", shape=[1], datatype="BYTES", contents=contents)
        return pb.ModelInferRequest(model_name="chain", id="two", inputs=[tensor])

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer, call = stub.ModelInfer.with_call(request(b"hello"), metadata=[("x-request-id", "g")])
        assert (answer.id, answer.outputs[0].contents.bytes_contents[0]) == ("two", b"\x01\x02")
        assert ("x-request-id", "g") in [tuple(item) for item in call.trailing_metadata()]
        odd = [("x-request-id", "g"), ("x-odd-bin", b"\xff\x00")]
        stub.ModelInfer(request(b"hello"), metadata=odd, timeout=20)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request(b"fail"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert "upper : rpc error: code = FailedPrecondition desc = no such word" in str(refused.value)


@pytest.fixture
async def elsewhere(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[RemoteServer]:
    uri = {"rest": server.url, "grpc": f"grpc://127.0.0.1:{server.grpc_port}", "nobody": "http://127.0.0.1:9"}
    steps = open_server(uri[request.param], 10, 2**24)
    yield steps
    await steps.aclose()


def word(data: bytes) -> StepMessage:
    return StepMessage("id", {"tone": 7}, (Tensor("word", "BYTES", (1,), [data], {"content_type": "str"}),))


@pytest.mark.parametrize("elsewhere", ["rest", "grpc"], indirect=True)
async def test_remote_step_answers_as_a_step_of_this_process(elsewhere: RemoteServer) -> None:
    answer, headers = await elsewhere("upper", word(b"hey"), {"x-request-id": "r", "x-color": "red"})
    text, _, seen = answer.tensors
    assert (text.name, text.data, text.shape) == ("text", [b"HEY"], (1, 1)) and text.parameters["content_type"] == "str"
    assert seen.data[0].endswith(b" red r") and answer.parameters["tone"] == "loud"
    assert headers["x-upper"] == "yes" and "not-passed" not in headers


@pytest.mark.parametrize("elsewhere", ["rest", "grpc"], indirect=True)
async def test_headers_of_any_script_reach_another_server(elsewhere: RemoteServer) -> None:
    headers = carried_headers({"x-request-id": "r", "x-color": "grün"})
    answer, _ = await elsewhere("upper", word(b"hey"), headers)
    assert answer.tensors[2].data[0].decode().split()[1] == "gr%C3%BCn"


@pytest.mark.parametrize("elsewhere", ["rest", "grpc"], indirect=True)
async def test_error_of_a_remote_step_reads_as_one_of_this_process(elsewhere: RemoteServer) -> None:
    for step, data, code in (("upper", b"fail", "FailedPrecondition desc = no such word"), ("none", b"x", "NotFound")):
        with pytest.raises(Exception) as refused:
            await elsewhere(step, word(data), {})
        assert step_error(step, refused.value).startswith(f"{step} : rpc error: code = {code}")


@pytest.mark.parametrize("elsewhere", ["rest", "nobody"], indirect=True)
async def test_binary_data_over_rest_and_missing_servers_are_errors(elsewhere: RemoteServer) -> None:
    with pytest.raises((UpstreamFailed, NotReachable)):
        await elsewhere("upper", word(b"\xff"), {})
        await elsewhere("upper", word(b"x"), {})


def test_wrong_uris_and_unknown_steps_in_models_are_refused() -> None:
    for models, reason in (("ftp://x", "doesn't begin with"), ({"b": "http://x"}, "'b', which is not a step")):
        with pytest.raises(SettingsError, match=reason):
            remote_steps(models, ["a"], 1, 1024)
    shared = remote_steps("grpc://x:1", ["a", "b"], 1, 1024)
    assert shared["a"] is shared["b"]


def test_steps_count_in_mlservers_metrics(server: Server) -> None:
    gateway(server, "chain", [text("word", "hello")])
    metrics = httpx2.get(f"http://127.0.0.1:{METRICS_PORT}/metrics").text
    assert 'model_infer_request_success_total{model="upper"' in metrics


async def test_64_concurrent_callers_get_their_own_answers(server: Server) -> None:
    async with httpx2.AsyncClient(timeout=30, limits=httpx2.Limits(max_connections=64)) as client:

        async def one(number: int) -> str:
            body = {"inputs": [text("word", f"a{number}")]}
            answer = await client.post(f"{server.url}/v2/pipelines/joined/infer", json=body)
            seen = answer.json()["outputs"][0]["data"][0]
            assert seen.endswith(answer.headers["x-request-id"])
            return seen

        assert len(set(await asyncio.gather(*(one(number) for number in range(64))))) == 64


def test_requested_outputs_are_ignored_as_on_core_2(server: Server) -> None:
    body = json.dumps({"inputs": [text("word", "any")], "outputs": [{"name": "seen"}]}).encode()
    assert [tensor["name"] for tensor in gateway(server, "joined", body).json()["outputs"]] == ["seen", "raw", "size"]


def test_pipeline_survives_a_reload_and_reports_a_missing_step(server: Server) -> None:
    ready = f"{server.url}/v2/pipelines/chain/ready"
    for _ in range(2):
        assert httpx2.get(ready).status_code == 200
        assert httpx2.post(f"{server.url}/v2/repository/models/chain/load", timeout=20).status_code == 200
    assert gateway(server, "chain", [text("word", "hello")]).status_code == 200
    assert httpx2.post(f"{server.url}/v2/repository/models/raw/unload").status_code == 200
    assert httpx2.get(ready).status_code == 424
    answer = gateway(server, "chain", [text("word", "hello")])
    assert (answer.status_code, answer.text) == (400, "raw : rpc error: code = NotFound desc = Model raw not found")
    assert httpx2.post(f"{server.url}/v2/repository/models/chain/unload").status_code == 200
    assert gateway(server, "chain", [text("word", "hello")]).status_code == 404
    assert httpx2.get(ready).status_code == 404


def log_of_failed_start(models: Path, tmp: Path) -> str:
    server = start_mlserver(models, tmp, wait=False)
    server.process.wait(60)
    return server.log.read_text(encoding="utf-8")


def test_loading_in_a_worker_process_is_refused_with_advice(tmp_path: Path) -> None:
    models = build(tmp_path)
    (models / "settings.json").write_text('{"parallel_workers": 1}', encoding="utf-8")
    log = log_of_failed_start(models, tmp_path)
    assert "model 'chain': a pipeline can't run in a worker process; set \"parallel_workers\": 0" in log


def test_steps_may_run_in_worker_processes(tmp_path: Path) -> None:
    models = build(tmp_path / "built")
    settings = models / "chain/model-settings.json"
    content = json.loads(settings.read_text(encoding="utf-8")) | {"parallel_workers": 0}
    settings.write_text(json.dumps(content), encoding="utf-8")
    (models / "settings.json").write_text('{"parallel_workers": 1}', encoding="utf-8")
    server = start_mlserver(models, tmp_path)
    try:
        assert gateway(server, "chain", [text("word", "hello")]).json()["outputs"][1]["data"] == [5.5]
    finally:
        server.stop()


def test_step_missing_from_the_repository_is_an_error_at_once(tmp_path: Path) -> None:
    models = build(tmp_path)
    (models / "raw/model-settings.json").unlink()
    log = log_of_failed_start(models, tmp_path)
    assert "model 'chain' calls 'raw', which its model repository lacks" in log
