"""Streams send the chunks of the streamed step, then the pipeline's answer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import httpx2
import pytest

from mlserver_chat.requests.streams import closing
from mlserver_pipeline.engine.errors import StepFailed
from mlserver_pipeline.engine.messages import StepMessage, Tensor
from mlserver_pipeline.engine.runner import Runner, Streaming
from mlserver_pipeline.engine.streaming import Chunk, streamed_steps
from mlserver_pipeline.service import side_steps
from pipeline_lab import Lab, emits, fails, ints, manifest_text, message
from support import Server, text

MakeLab = Callable[..., Lab]


def said(content: str, **parameters: str) -> StepMessage:
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": content}}]}
    data = {"role": "assistant", "content": content, "output_all": json.dumps(chunk)}
    tensors = [Tensor(name, "BYTES", (1, 1), [value.encode()], {"content_type": "str"}) for name, value in data.items()]
    return message(*tensors, **parameters)


def content(sent: StepMessage) -> str:
    return next(tensor.data[0].decode() for tensor in sent.tensors if tensor.name == "content")


class Talker:
    """Streams its words one by one. `closed` tells whether its stream was closed."""

    def __init__(self, *words: str, error: Exception | None = None, wait: float = 0.0):
        self.words = words
        self.error = error
        self.wait = wait
        self.closed = False

    async def __call__(self, step: str, sent: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        try:
            for word in self.words:
                yield said(word, model="talker"), {"x-talker": "yes"}
                await asyncio.sleep(self.wait)
            if self.error:
                raise self.error
        finally:
            self.closed = True


CHAIN = "steps:\n- {name: talk}\n- {name: keep, inputs: [talk]}\noutput: {steps: [keep]}"


def runner(it: Lab, talker: Talker, *steps: str) -> Runner:
    return Runner(it.engine, streaming=Streaming({"p": frozenset(steps)}, talker))


async def test_stream_sends_chunks_and_passes_the_whole_answer_on(lab: MakeLab) -> None:
    it = lab({"keep": lambda sent: sent}, CHAIN)
    stream = runner(it, Talker("Hel", "lo"), "talk").stream("p", message(ints("i", 1)), {})
    *chunks, last = [part.message async for part in stream]
    assert [content(chunk) for chunk in chunks] == ["Hel", "lo"]
    assert [chunk.parameters["step"] for chunk in chunks] == ["talk", "talk"]
    assert content(last) == "Hello" and "step" not in last.parameters
    (kept,) = [sent for step, sent in it.calls if step == "keep"]
    whole = json.loads(next(tensor.data[0] for tensor in kept.tensors if tensor.name == "output_all"))
    assert whole["object"] == "chat.completion" and whole["choices"][0]["message"]["content"] == "Hello"
    assert kept.parameters == {"model": "talker"} and it.headers[-1]["x-talker"] == "yes"


async def test_caller_leaving_a_stream_stops_the_model_and_keeps_what_it_said(lab: MakeLab) -> None:
    it = lab({"keep": lambda sent: sent}, CHAIN)
    talker = Talker("I was", " about", " to", wait=0.2)
    async with closing(runner(it, talker, "talk").stream("p", message(ints("i", 1)), {})) as stream:
        first = await anext(stream)
        assert content(first.message) == "I was"
    await it.engine.aclose()
    assert talker.closed
    (kept,) = [sent for step, sent in it.calls if step == "keep"]
    assert content(kept) == "I was" and kept.parameters["finish_reason"] == "cut"


async def test_caller_leaving_before_the_first_chunk_stores_nothing(lab: MakeLab) -> None:
    spec = "steps: [{name: slow}, {name: talk, inputs: [slow]}, {name: keep, inputs: [talk]}]\noutput: {steps: [keep]}"
    gate = asyncio.Event()

    async def slow(sent: StepMessage) -> StepMessage:
        await gate.wait()
        return message(ints("x", 1))

    it = lab({"slow": slow, "keep": lambda sent: sent}, spec)
    talker = Talker("never")
    task = asyncio.ensure_future(anext(runner(it, talker, "talk").stream("p", message(ints("i", 1)), {})))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await it.engine.aclose()
    assert [step for step, _ in it.calls] == ["slow"]


async def test_error_within_a_stream_is_the_steps_error(lab: MakeLab) -> None:
    from mlserver.errors import MLServerError

    it = lab({"keep": lambda sent: sent}, CHAIN)
    stream = runner(it, Talker("x", error=MLServerError("broke", 424)), "talk").stream("p", message(ints("i", 1)), {})
    assert content((await anext(stream)).message) == "x"
    with pytest.raises(StepFailed, match="talk : rpc error: code = Unknown desc = broke"):
        await anext(stream)
    assert it.got("keep") == []


async def test_pipeline_without_a_streaming_step_sends_one_message(lab: MakeLab) -> None:
    it = lab({"talk": emits("x"), "keep": emits("y")}, CHAIN)
    parts = [part async for part in runner(it, Talker(), "other").stream("p", message(ints("i", 1)), {})]
    assert [tensor.name for part in parts for tensor in part.message.tensors] == ["y"]
    it = lab({"talk": fails(422, "no")}, CHAIN)
    with pytest.raises(StepFailed):
        await anext(runner(it, Talker(), "other").stream("p", message(ints("i", 1)), {}))


def test_last_streaming_step_on_each_path_to_the_output_is_streamed(lab: MakeLab) -> None:
    spec = """
    steps:
    - name: first
    - name: left
      inputs: [first]
    - name: right
      inputs: [p]
      triggers: [first.outputs.x]
    - name: keep
      inputs: [left, right]
      inputsJoinType: any
    - name: log
      inputs: [left]
    output: {steps: [keep]}
    """
    graph = lab({}, spec).engine.graphs["p"]
    assert streamed_steps(graph, {"first", "left", "right", "log", "elsewhere"}) == {"left", "right"}
    assert streamed_steps(graph, {"first", "log"}) == {"first"}
    assert streamed_steps(graph, {"log"}) == frozenset()


def test_steps_of_side_pipelines_are_not_streamed(lab: MakeLab) -> None:
    first = "steps: [{name: talk}]\noutput: {steps: [talk]}"
    side = "input: {externalInputs: [p.inputs]}\nsteps: [{name: comment}, {name: talk}]"
    graphs = list(lab({}, first, side, names=("p", "side")).engine.graphs.values())
    assert side_steps(graphs[0], graphs) == {"comment", "talk"} and side_steps(graphs[1], graphs) == set()


SERVED = '''
import asyncio, json, os
from pathlib import Path
from mlserver import MLModel
from mlserver.types import InferenceResponse
from mlserver_chat import Completion, CompletionChunk, Runtime, SiblingSettings, InvalidInput
from mlserver_chat.runtime import text_metadata
from mlserver_chat.tensors import passed_through, read_tensors, text_output, text_elements


class Talk(Runtime):
    settings_class = SiblingSettings
    output_tensors = text_metadata("role", "content", "output_all")

    async def handle(self, request):
        return self.response([text_output("content", ["all at once"])])

    async def handle_stream(self, request):
        for word in text_elements(request.inputs[0])[0].split():
            if word == "fail":
                raise InvalidInput("no such word")
            said = [text_output("role", ["assistant"]), text_output("content", [word + " "])]
            yield self.response(said, model=self.name)
            await asyncio.sleep(0.3)


class Keep(MLModel):
    """Appends what it gets to a file."""

    async def predict(self, payload):
        (content,) = text_elements(read_tensors(payload.inputs)["content"])
        with open(Path(os.environ["KEPT"]), "a") as file:
            print(content, getattr(payload.parameters, "finish_reason", "-"), file=file)
        return InferenceResponse(model_name=self.name, outputs=[text_output("kept", [content])])
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mlserver: Callable[..., Server]) -> Iterator[tuple[Server, Path]]:
    tmp = tmp_path_factory.mktemp("streams")
    models: dict[str, dict[str, object]] = {
        "p": {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": {"manifest": "p.yaml"}}},
        "talk": {"implementation": "served.Talk"},
        "keep": {"implementation": "served.Keep"},
    }
    files = {"p/p.yaml": manifest_text(CHAIN), "talk/served.py": SERVED, "keep/served.py": SERVED}
    yield mlserver(models, files=files, env={"KEPT": str(tmp / "kept")}), tmp / "kept"


def events(response: httpx2.Response) -> Iterator[tuple[float, dict[str, object]]]:
    for line in response.iter_lines():
        if line.startswith("data:"):
            yield time.monotonic(), json.loads(line.removeprefix("data:"))


def stream(server: Server, words: str, path: str = "/v2/models/p/infer_stream", **headers: str) -> object:
    body = {"inputs": [text("word", words)]}
    return httpx2.stream("POST", f"{server.url}{path}", json=body, headers=headers, timeout=20)


def test_rest_stream_sends_chunks_at_once_and_the_answer_last(server: tuple[Server, Path]) -> None:
    with stream(server[0], "one two three") as response:  # type: ignore[attr-defined]
        received = list(events(response))
    times, messages = zip(*received, strict=True)
    assert [each["outputs"][-1]["data"] for each in messages] == [["one "], ["two "], ["three "], ["one two three "]]
    assert times[2] - times[0] > 0.4
    assert [each["parameters"].get("step") for each in messages] == ["talk", "talk", "talk", None]


def test_rest_stream_ends_with_the_error_of_a_step(server: tuple[Server, Path]) -> None:
    with stream(server[0], "one fail") as response:  # type: ignore[attr-defined]
        *_, (_, last) = events(response)
    assert last["outputs"] == []
    assert last["parameters"]["status"] == 400
    assert last["parameters"]["error"] == "talk : rpc error: code = FailedPrecondition desc = no such word"


def test_caller_hanging_up_on_a_rest_stream_stores_what_was_said_as_cut(server: tuple[Server, Path]) -> None:
    with stream(server[0], "before after " + "never " * 9) as response:  # type: ignore[attr-defined]
        next(events(response))
    deadline = time.monotonic() + 10
    while "before" not in (kept := server[1].read_text(encoding="utf-8")) and time.monotonic() < deadline:
        time.sleep(0.05)
    line = next(line for line in kept.splitlines() if line.startswith("before"))
    assert line.endswith("cut") and "never never" not in line


SPLIT = """
apiVersion: mlops.seldon.io/v1alpha1
kind: Experiment
metadata: {name: e}
spec: {default: say, candidates: [{name: say, weight: 0}, {name: said, weight: 1}]}
"""


@pytest.fixture(scope="module")
def front(server: tuple[Server, Path], mlserver: Callable[..., Server]) -> Server:
    """Pipelines whose steps run on `server`, and one whose step is split over two models."""
    uris = {"by-rest": server[0].url, "by-grpc": f"grpc://127.0.0.1:{server[0].grpc_port}"}
    files = {f"{name}/p.yaml": manifest_text(CHAIN, name) for name in uris}
    files["split/p.yaml"] = manifest_text("steps: [{name: say}]\noutput: {steps: [say]}", "split") + "---" + SPLIT
    models: dict[str, dict[str, object]] = {name: {"implementation": "served.Talk"} for name in ("say", "said")}
    files |= {f"{name}/served.py": SERVED for name in models}
    for name in ("by-rest", "by-grpc", "split"):
        extra = {"manifest": "p.yaml"} | ({"models": uris[name]} if name in uris else {})
        models[name] = {"implementation": "mlserver_pipeline.Pipeline", "parameters": {"extra": extra}}
    return mlserver(models, files=files)


@pytest.mark.parametrize("name", ["by-rest", "by-grpc"])
def test_step_on_another_server_streams(front: Server, server: tuple[Server, Path], name: str) -> None:
    path = f"/v2/pipelines/{name}/infer_stream"
    with stream(front, "one two three", path) as response:  # type: ignore[attr-defined]
        times, messages = zip(*events(response), strict=True)
    assert [each["outputs"][-1]["data"] for each in messages] == [["one "], ["two "], ["three "], ["one two three "]]
    assert times[2] - times[0] > 0.4
    with stream(front, "one fail", path) as response:  # type: ignore[attr-defined]
        *_, (_, last) = events(response)
    assert last["parameters"]["error"] == "talk : rpc error: code = FailedPrecondition desc = no such word"
    with stream(front, f"{name} stops " + "never " * 9, path) as response:  # type: ignore[attr-defined]
        next(events(response))
    deadline = time.monotonic() + 20
    while name not in (kept := server[1].read_text(encoding="utf-8")) and time.monotonic() < deadline:
        time.sleep(0.05)
    line = next(line for line in kept.splitlines() if line.startswith(name))
    assert line.endswith("cut") and "never never" not in line


def test_split_step_streams_from_the_chosen_candidate(front: Server) -> None:
    for path, header in (("/v2/models/x/infer_stream", "split.pipeline"), ("/v2/models/split/infer_stream", "")):
        with stream(front, "one two", path, **{"seldon-model": header}) as response:  # type: ignore[attr-defined]
            messages = [message for _, message in events(response)]
        assert [each["parameters"]["model"] for each in messages] == ["said"] * 3
