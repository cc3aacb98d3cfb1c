"""What a loaded pipeline model holds: the runner, the connections to other servers, and its place among the routes."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from mlserver import MLServer, ModelSettings
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
from .calls.local import SameProcessSteps, answers_as_llm, can_stream
from .calls.remote import MixedSteps, is_remote_llm, remote_steps
from .calls.spans import SpannedSteps
from .calls.split import SplitSteps
from .calls.timed import TimedSteps
from .engine.engine import Engine
from .engine.runner import Runner, Streaming
from .engine.streaming import streamed_steps
from .manifests.experiments import Experiment
from .manifests.graph import Graph
from .settings import PipelineSettings


class Service:
    """Pipelines whose steps are ready, reachable at Core 2's addresses until `aclose`."""

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
        _mesh_of(server).members.append(addresses)

    async def is_ready(self, pipeline: str) -> bool:
        """Whether all models of this process that the pipeline calls are ready."""
        models = [await find_model(self._registry, name) for name in self._models[pipeline]]
        return all(model is not None and model.ready for model in models)

    async def aclose(self) -> None:
        """Take no more requests, let those on their way come to their end, and close the connections."""
        _leave(self._server, self._addresses)
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
    """The service of these pipelines, once the models that they call in this process are ready.

    Raises:
        SettingsError: a model that the repository lacks or that is not ready in time, or a wrong URI.
    """
    split = {experiment.spec.default: experiment for experiment in experiments if not experiment.is_of_pipelines}
    steps = {step for graph in graphs for step in graph.steps}
    called = sorted(steps.union(*(experiment.members for default, experiment in split.items() if default in steps)))
    remote = remote_steps(config.models, called, config.step_timeout, config.limits.max_response_bytes)
    models = await asyncio.gather(
        *(wait_for_model(registry, step, owner, config.load_timeout) for step in called if step not in remote)
    )
    asked = await asyncio.gather(*(is_remote_llm(elsewhere, step) for step, elsewhere in remote.items()))
    speaking = {model.name for model in models if can_stream(model)}
    remote_speaking = {step for step, speaks in zip(remote, asked, strict=True) if speaks}
    speaking |= remote_speaking
    # Whoever is chosen has to stream.
    mute = {default for default, each in split.items() if not {one.name for one in each.spec.candidates} <= speaking}
    here = SameProcessSteps(data_plane_of(server))
    mixed = MixedSteps(remote, here)
    tracer = tracer_provider_of(server).get_tracer("mlserver_pipeline")
    llm_steps = {model.name for model in models if answers_as_llm(model)} | remote_speaking
    split_steps = SplitSteps(split.values(), LeavableSteps(mixed, llm_steps), mixed.stream)
    engine = Engine(
        graphs, split_steps, around=lambda call: SpannedSteps(TimedSteps(call, config.step_timeout), tracer)
    )
    streamed = {graph.name: streamed_steps(graph, speaking - mute - side_steps(graph, graphs)) for graph in graphs}
    streaming = Streaming(streamed, split_steps.stream, config.limits.max_response_bytes)
    addresses = Pipelines(owner.name, frozenset(graph.name for graph in graphs), experiments)
    candidates = {default: [one.name for one in each.spec.candidates] for default, each in split.items()}
    answering = {graph.name: {one for step in graph.steps for one in candidates.get(step, [step])} for graph in graphs}
    own = {name: answering[name] - remote.keys() for name in answering}
    return Service(Runner(engine, config.trace_values, streaming), mixed, own, registry, server, addresses)


def _mesh_of(server: MLServer) -> Mesh:
    """The mesh of a server, which all of its pipeline models share; made by the first that needs it."""
    router = rest_router_of(server)
    found = next((route for route in router.routes if isinstance(route, MeshRoute)), None)
    if found is not None:
        return found.mesh
    mesh = Mesh()
    # Before MLServer's own routes, which would take the request by its path.
    router.routes.insert(0, MeshRoute(router, mesh))
    serve_grpc_from(server, MeshDataPlane(data_plane_of(server), mesh))
    return mesh


def _leave(server: MLServer, addresses: Pipelines) -> None:
    """Take a model's addresses out of the mesh, and the mesh with the last of them."""
    members = _mesh_of(server).members
    members[:] = [member for member in members if member is not addresses]
    if not members:
        routes = rest_router_of(server).routes
        routes[:] = [route for route in routes if not isinstance(route, MeshRoute)]
        serve_grpc_from(server, data_plane_of(server))


def side_steps(graph: Graph, graphs: Sequence[Graph]) -> set[str]:
    """The steps of pipelines that read this one: what they say on the side is not for its caller."""
    return {step for other in graphs if graph.name in other.reads for step in other.steps}
