"""Connects a loaded pipeline model: its steps, its runner, and its addresses in the server's mesh."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from mlserver import MLModel, MLServer, ModelSettings
from mlserver.registry import MultiModelRegistry

from mlserver_chat.calls.siblings import (
    data_plane_of,
    find_model,
    rest_router_of,
    serve_grpc_from,
    tracer_provider_of,
    wait_for_model,
)

from .api.grpc_mesh import MeshDataPlane
from .api.mesh import Mesh, MeshRoute, Pipelines
from .calls.leaving import LeavableSteps
from .calls.local import SameProcessSteps, can_stream, is_llm
from .calls.remote import MixedSteps, RemoteServer, is_remote_llm, remote_steps
from .calls.spans import SpannedSteps
from .calls.split import SplitSteps
from .calls.timed import TimedSteps
from .engine.engine import Engine
from .engine.runner import Runner, Streaming
from .engine.streaming import streamed_steps
from .manifests.experiments import Experiment
from .manifests.graph import Graph
from .settings import PipelineSettings

Splits = Mapping[str, Experiment]
"""The experiments that split a step's requests over several models, by the step."""


class Service:
    """Pipelines whose steps are ready. Core 2's addresses reach them until `aclose`.

    Args:
        runner: runs their requests.
        steps: calls their models.
        models: the models of this process that each pipeline calls.
        registry: the models of this process.
        server: the server that gets the addresses.
        addresses: the names of the pipelines and experiments.
    """

    def __init__(
        self,
        runner: Runner,
        steps: MixedSteps,
        models: Mapping[str, Collection[str]],
        registry: MultiModelRegistry,
        server: MLServer,
        addresses: Pipelines,
    ):
        self.runner = runner
        self._steps = steps
        self._models = models
        self._registry = registry
        self._server = server
        self._addresses = addresses
        _add_to_mesh(server, addresses)

    @property
    def has_core2_addressing(self) -> bool:
        """Whether the server follows Core 2's headers."""
        routes = rest_router_of(self._server).routes
        return all(route.mesh.is_on for route in routes if isinstance(route, MeshRoute))

    async def is_ready(self, pipeline: str) -> bool:
        """Whether all models of this process that the pipeline calls are ready."""
        models = [await find_model(self._registry, name) for name in self._models[pipeline]]
        return all(model is not None and model.ready for model in models)

    async def aclose(self) -> None:
        """Stop taking requests, let running requests finish, and close the connections."""
        _remove_from_mesh(self._server, self._addresses)
        await self.runner.aclose()
        await self._steps.aclose()


async def open_service(
    graphs: Sequence[Graph],
    experiments: Sequence[Experiment],
    config: PipelineSettings,
    owner: ModelSettings,
    registry: MultiModelRegistry,
    server: MLServer,
) -> Service:
    """Wait until the models that the pipelines call in this process are ready, and connect the pipelines to them.

    Args:
        graphs: the pipelines.
        experiments: the experiments that were loaded with them.
        config: settings of the pipeline model.
        owner: the pipeline model's own MLServer settings.
        registry: the models of this process.
        server: the server of this process.

    Raises:
        SettingsError: a model is missing from the repository or not ready in time, or a URI is wrong.
    """
    splits = {each.spec.default: each for each in experiments if each.spec.default and not each.is_of_pipelines}
    models = _models_to_call(graphs, splits)
    remote = remote_steps(config.models, models, config.step_timeout, config.limits.max_response_bytes)
    here = [name for name in models if name not in remote]
    loaded = await asyncio.gather(*(wait_for_model(registry, name, owner, config.load_timeout) for name in here))
    abilities = await _abilities(loaded, remote)
    steps = MixedSteps(remote, SameProcessSteps(data_plane_of(server)))
    return Service(
        _open_runner(graphs, splits, steps, abilities, config, server),
        steps,
        {graph.name: _answering_models(graph, splits) - remote.keys() for graph in graphs},
        registry,
        server,
        Pipelines(owner.name, frozenset(graph.name for graph in graphs), experiments, config.core2_addressing),
    )


def _models_to_call(graphs: Sequence[Graph], splits: Splits) -> list[str]:
    """The names of the steps, and of the candidates and mirrors of those that are split."""
    steps = {step for graph in graphs for step in graph.steps}
    return sorted(steps.union(*(split.members for step, split in splits.items() if step in steps)))


def _answering_models(graph: Graph, splits: Splits) -> set[str]:
    """The models that can answer for the steps of a pipeline."""
    return {name for step in graph.steps for name in (splits[step].candidate_names if step in splits else {step})}


class _Abilities(NamedTuple):
    """The abilities of models, by their names."""

    streaming: set[str]
    """Models whose chunks a caller can read."""
    llm: set[str]
    """Models that generate."""


async def _abilities(loaded: Sequence[MLModel], remote: Mapping[str, RemoteServer]) -> _Abilities:
    answers = await asyncio.gather(*(is_remote_llm(server, step) for step, server in remote.items()))
    remote_llms = {step for step, answer in zip(remote, answers, strict=True) if answer}
    return _Abilities(
        streaming=remote_llms | {model.name for model in loaded if can_stream(model)},
        llm=remote_llms | {model.name for model in loaded if is_llm(model)},
    )


def _open_runner(
    graphs: Sequence[Graph],
    splits: Splits,
    steps: MixedSteps,
    abilities: _Abilities,
    config: PipelineSettings,
    server: MLServer,
) -> Runner:
    tracer = tracer_provider_of(server).get_tracer("mlserver_pipeline")
    calls = SplitSteps(splits.values(), LeavableSteps(steps, abilities.llm), steps.stream)
    engine = Engine(graphs, calls, around=lambda call: SpannedSteps(TimedSteps(call, config.step_timeout), tracer))
    streaming = _streaming_steps(splits, abilities)
    streamed = {graph.name: streamed_steps(graph, streaming - side_steps(graph, graphs)) for graph in graphs}
    return Runner(engine, config.trace_values, Streaming(streamed, calls.stream, config.limits.max_response_bytes))


def _streaming_steps(splits: Splits, abilities: _Abilities) -> set[str]:
    """The steps that can stream. A split step can if all of its candidates can."""
    unable = {step for step, split in splits.items() if not abilities.streaming >= split.candidate_names}
    return abilities.streaming - unable


def side_steps(graph: Graph, graphs: Sequence[Graph]) -> set[str]:
    """The steps of the pipelines that read `graph`. Their answers are not part of its own answer."""
    return {step for other in graphs if graph.name in other.reads for step in other.steps}


def _add_to_mesh(server: MLServer, addresses: Pipelines) -> None:
    """Make pipelines reachable by Core 2's addresses. All pipeline models of a server share one mesh."""
    router = rest_router_of(server)
    route = next((route for route in router.routes if isinstance(route, MeshRoute)), None)
    if route is None:
        route = MeshRoute(router, Mesh())
        # First, since MLServer's own routes would match the request by its path.
        router.routes.insert(0, route)
        serve_grpc_from(server, MeshDataPlane(data_plane_of(server), route.mesh))
    route.mesh.members.append(addresses)


def _remove_from_mesh(server: MLServer, addresses: Pipelines) -> None:
    """Remove the addresses of a model, and the mesh itself with the last of them."""
    routes = rest_router_of(server).routes
    for route in [route for route in routes if isinstance(route, MeshRoute)]:
        route.mesh.members[:] = [member for member in route.mesh.members if member is not addresses]
        if not route.mesh.members:
            routes.remove(route)
            serve_grpc_from(server, data_plane_of(server))
