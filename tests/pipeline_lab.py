"""Runs pipelines without a server. Models are small functions, and the test sets the clock."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from textwrap import dedent, indent

import pytest
from mlserver.errors import MLServerError

from mlserver_pipeline.engine.engine import Answer, Engine, Outcome, Run
from mlserver_pipeline.engine.messages import StepMessage, Tensor
from mlserver_pipeline.manifests.graph import compile_graph
from mlserver_pipeline.manifests.manifest import read_manifests
from mlserver_pipeline.manifests.validation import check

Model = Callable[[StepMessage], StepMessage | Awaitable[StepMessage]]


def manifest_text(spec: str, name: str = "p") -> str:
    """Write a Pipeline resource with this `spec`."""
    head = f"apiVersion: mlops.seldon.io/v1alpha1\nkind: Pipeline\nmetadata: {{name: {name}}}\nspec:\n"
    return head + indent(dedent(spec).strip("\n"), "  ") + "\n"


def ints(name: str, *values: int) -> Tensor:
    return Tensor(name, "INT64", (len(values),), list(values), {})


def message(*tensors: Tensor, id: str = "", **parameters: bool | int | str) -> StepMessage:
    return StepMessage(id, parameters, tensors)


def values(outcome: Outcome) -> list[tuple[str, list[int]]]:
    """Return the names and data of the answer's tensors, in order."""
    assert isinstance(outcome, Answer), outcome
    return [(tensor.name, tensor.data) for tensor in outcome.message.tensors]


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000

    def __call__(self) -> int:
        return self.now


class Lab:
    """Runs pipelines whose models are functions. `calls` records the message of each call, in order."""

    def __init__(self, folder: Path, models: Mapping[str, Model], *specs: str, names: tuple[str, ...] = ("p",)):
        self.models = dict(models)
        self.calls: list[tuple[str, StepMessage]] = []
        self.headers: list[Mapping[str, str]] = []
        self.clock = Clock()
        graphs = []
        for name, spec in zip(names, specs, strict=True):
            path = folder / f"{name}.yaml"
            path.write_text(manifest_text(spec, name), encoding="utf-8")
            graphs += [compile_graph(check(loaded)) for loaded in read_manifests(path)]
        self.engine = Engine(graphs, self._call, self.clock)

    async def _call(
        self, step: str, sent: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        self.calls.append((step, sent))
        self.headers.append(headers)
        if step not in self.models:
            raise MLServerError(f"Model {step} not found", 404)
        answer = self.models[step](sent)
        if not isinstance(answer, StepMessage):
            answer = await answer
        # In MLServer, a response has the request's id.
        return answer._replace(id=sent.id), {}

    def start(self, *tensors: Tensor, pipeline: str = "p", **parameters: bool | int | str) -> Run:
        return self.engine.start(pipeline, message(*tensors, id="id-1", **parameters), {"x-request-id": "r"}, "r")

    async def run(self, *tensors: Tensor, pipeline: str = "p", **parameters: bool | int | str) -> Outcome:
        """Run a request until no step runs any more, and return its outcome."""
        run = self.start(*tensors, pipeline=pipeline, **parameters)
        await run.done
        return run.outcome.result()

    def got(self, step: str) -> list[list[str]]:
        """Return the names of the tensors of each call of a step."""
        return [[tensor.name for tensor in sent.tensors] for name, sent in self.calls if name == step]


@pytest.fixture
def lab(tmp_path: Path) -> Callable[..., Lab]:
    """A factory of labs: `lab({"step": function, …}, spec, …)`."""

    def make(models: Mapping[str, Model], *specs: str, names: tuple[str, ...] = ("p",)) -> Lab:
        return Lab(tmp_path, models, *specs, names=names)

    return make


def emits(*names: str) -> Model:
    """A model that answers tensors of these names. Each is the sum of all its inputs."""

    def model(sent: StepMessage) -> StepMessage:
        total = sum(sum(tensor.data) for tensor in sent.tensors)
        return message(*(ints(name, total) for name in names))

    return model


def adds(number: int) -> Model:
    """`add10`: `INPUT` in, `OUTPUT` out."""
    return lambda sent: message(ints("OUTPUT", *(value + number for value in sent.tensors[0].data)))


def multiplies(number: int) -> Model:
    """`mul10`: `INPUT` in, `OUTPUT` out."""
    return lambda sent: message(ints("OUTPUT", *(value * number for value in sent.tensors[0].data)))


def fails(status: int, sentence: str) -> Model:
    def model(_: StepMessage) -> StepMessage:
        raise MLServerError(sentence, status)

    return model


def after(clock: Clock, milliseconds: int, model: Model) -> Model:
    """A model that answers after the clock has advanced."""

    async def slow(sent: StepMessage) -> StepMessage:
        await asyncio.sleep(0)
        clock.now += milliseconds
        answer = model(sent)
        return answer if isinstance(answer, StepMessage) else await answer

    return slow
