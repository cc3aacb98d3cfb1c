"""Core 2's samples that need a server: changing a pipeline while it serves, and numbers and text over REST."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pipeline_lab import manifest_text
from support import Server

MODELS = """
import asyncio
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, StringCodec
from mlserver.types import InferenceResponse


class Arithmetic(MLModel):
    # What each model of the samples does, by its name.
    async def predict(self, payload):
        if self.name == "slow":
            await asyncio.sleep(1)
            output = NumpyCodec.encode_output("OUTPUT", self.decode(payload.inputs[0], default_codec=NumpyCodec))
        elif self.name in ("add10", "mul10"):
            array = self.decode(payload.inputs[0], default_codec=NumpyCodec)
            output = NumpyCodec.encode_output("OUTPUT", array + 10 if self.name == "add10" else array * 10)
        elif self.name == "iris":
            rows = self.decode_request(payload, default_codec=NumpyRequestCodec)
            output = NumpyCodec.encode_output("predict", rows.argmax(axis=1))
        else:
            (said,) = StringCodec.decode_input(payload.inputs[0])
            names = {"whisper": "output", "sentiment": "output", "explainer": "explanation"}
            assert [each.name for each in payload.inputs] == (["args"] if self.name != "whisper" else ["audio"])
            output = StringCodec.encode_output(names[self.name], [f"{self.name}({said})"])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
VERSIONS = {
    step: manifest_text(f"steps: [{{name: {step}}}]\noutput: {{steps: [{step}]}}", "version-test")
    for step in ("add10", "mul10")
}
SLOW = manifest_text("steps: [{name: slow}]\noutput: {steps: [slow]}", "patient")
IRIS = manifest_text("steps: [{name: iris}]\noutput: {steps: [iris]}", "flowers")
SPEECH = manifest_text(
    """
    steps:
    - name: whisper
    - name: sentiment
      inputs: [whisper]
      tensorMap: {whisper.outputs.output: args}
    - name: explainer
      inputs: [sentiment]
      tensorMap: {sentiment.outputs.output: args}
    output: {steps: [sentiment, whisper]}
    """,
    "speech-to-sentiment",
)


@pytest.fixture(scope="module")
def served(mlserver: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, Path]:
    """A server with the samples' models and pipelines, and the manifest of `version-test`."""
    tmp = tmp_path_factory.mktemp("samples")
    names = ("add10", "mul10", "slow", "iris", "whisper", "sentiment", "explainer")
    models: dict[str, dict[str, Any]] = {name: {"implementation": "samples.Arithmetic"} for name in names}
    files = {f"{name}/samples.py": MODELS for name in names}
    manifests = {"flowers": IRIS, "speech-to-sentiment": SPEECH, "patient": SLOW, "version-test": VERSIONS["add10"]}
    for name, manifest in manifests.items():
        extra = {"manifest": "p.yaml"}
        models[name] = {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": extra}}
        files[f"{name}/p.yaml"] = manifest
    return mlserver(models, files=files, tmp=tmp), tmp / "models/version-test/p.yaml"


def infer(server: Server, pipeline: str, **tensor: Any) -> httpx2.Response:
    url = f"{server.url}/v2/pipelines/{pipeline}/infer"
    return httpx2.post(url, json={"inputs": [tensor]}, timeout=20)


def four(server: Server) -> list[float]:
    """The answer of `version-test` to 1, 2, 3 and 4."""
    answer = infer(server, "version-test", name="INPUT", shape=[4], datatype="FP32", data=[1, 2, 3, 4])
    assert answer.status_code == 200, answer.text
    # Core 2 counts a pipeline's versions; here the manifest that is loaded is the only one.
    assert answer.headers["x-pipeline-version"] == "1"
    (output,) = answer.json()["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("OUTPUT", [4, 1], "FP32")
    return output["data"]


def load(server: Server, name: str) -> int:
    return httpx2.post(f"{server.url}/v2/repository/models/{name}/load", timeout=20).status_code


def test_changed_manifest_counts_once_it_is_loaded_and_can_be_reverted(
    served: tuple[Server, Path],
) -> None:
    server, manifest = served
    answers = {"add10": [11, 12, 13, 14], "mul10": [10, 20, 30, 40]}
    assert four(server) == answers["add10"]
    for step in ("mul10", "add10"):
        before = four(server)
        manifest.write_text(VERSIONS[step], encoding="utf-8")
        assert four(server) == before, "a file alone changes nothing"
        assert load(server, "version-test") == 200
        assert four(server) == answers[step]


def test_faulty_manifest_does_not_replace_the_loaded_one(served: tuple[Server, Path]) -> None:
    server, manifest = served
    before = four(server)
    manifest.write_text(VERSIONS["mul10"].replace("steps: [mul10]", "steps: [gone]"), encoding="utf-8")
    assert load(server, "version-test") >= 400
    assert four(server) == before
    manifest.write_text(VERSIONS["add10"], encoding="utf-8")
    assert load(server, "version-test") == 200 and four(server) == [11, 12, 13, 14]


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_running_request_is_answered_after_its_pipeline_was_replaced(served: tuple[Server, Path], verb: str) -> None:
    server, _ = served
    with ThreadPoolExecutor(1) as caller:
        asked = caller.submit(infer, server, "patient", name="INPUT", shape=[1], datatype="FP32", data=[7])
        time.sleep(0.3)
        assert not asked.done()
        assert httpx2.post(f"{server.url}/v2/repository/models/patient/{verb}", timeout=20).status_code == 200
        answer = asked.result()
    assert answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [7]


def test_iris_predicts_whole_numbers_by_numpys_codec(served: tuple[Server, Path]) -> None:
    answer = infer(served[0], "flowers", name="predict", shape=[1, 4], datatype="FP32", data=[1, 2, 4, 3])
    assert answer.json() == {
        "model_name": "",
        "outputs": [
            {
                "data": [2],
                "name": "predict",
                "shape": [1, 1],
                "datatype": "INT64",
                "parameters": {"content_type": "np"},
            }
        ],
    }


def test_speech_is_passed_on_as_text_under_the_next_models_name(served: tuple[Server, Path]) -> None:
    answer = infer(served[0], "speech-to-sentiment", name="audio", shape=[1], datatype="BYTES", data=["hm"])
    said = [(each["name"], each["data"], each["shape"]) for each in answer.json()["outputs"]]
    assert said == [("output", ["sentiment(whisper(hm))"], [1, 1]), ("output", ["whisper(hm)"], [1, 1])]
