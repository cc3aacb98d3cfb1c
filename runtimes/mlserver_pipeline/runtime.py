"""The runtime: a Seldon Pipeline manifest, run in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request, Response
from mlserver import ModelSettings
from mlserver.handlers.custom import CustomHandler, register_custom_handler
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import Runtime, SettingsError, request_headers, request_identity, settings_folder
from mlserver_chat.siblings import find_data_plane, wait_for_model
from mlserver_chat.streams import closing

from .calls import SameProcessSteps, can_stream
from .endpoint import gateway_response
from .engine import Engine
from .loading import load_graphs
from .remote import MixedSteps, remote_steps
from .runner import Runner, Streaming, entry_headers
from .settings import PipelineSettings
from .streaming import streamed_steps
from .wire import message_from_request, response_to_client


class Pipeline(Runtime[PipelineSettings]):
    """Runs the pipelines of its manifests: each at `/v2/pipelines/<pipeline>/infer`, in the shape of Core 2's gateway,
    and the one that bears the model's name (else the first) as an ordinary model."""

    settings_class = PipelineSettings

    def __init__(self, settings: ModelSettings):
        super().__init__(settings)
        self._graphs = load_graphs(self.config.manifest, settings_folder(settings))
        names = [graph.name for graph in self._graphs]
        self._main = settings.name if settings.name in names else names[0]
        for index, name in enumerate(names):
            # MLServer looks for handlers among the attributes of a model, before it loads it.
            setattr(self, f"gateway_{index}", self._gateway(name))

    async def load(self) -> bool:
        """Wait for the steps' models."""
        data_plane = find_data_plane(self.registry)
        if self.registry is None or data_plane is None:
            raise SettingsError(
                f"model '{self.name}': a pipeline can't run in a worker process; "
                'set "parallel_workers": 0 in settings.json or in the pipeline\'s model-settings.json'
            )
        steps = sorted({step for graph in self._graphs for step in graph.steps})
        remote = remote_steps(self.config.models, steps, self.config.step_timeout)
        models = await asyncio.gather(
            *(
                wait_for_model(self.registry, step, self.settings, self.config.load_timeout)
                for step in steps
                if step not in remote
            )
        )
        speaking = {model.name for model in models if can_stream(model)}
        streamed = {graph.name: streamed_steps(graph, speaking) for graph in self._graphs}
        here = SameProcessSteps(data_plane, self.config.step_timeout)
        self._steps = MixedSteps(remote, here)
        engine = Engine(self._graphs, self._steps)
        self._runner = Runner(engine, self.config.trace_values, Streaming(streamed, here.stream))
        return True

    async def unload(self) -> bool:
        """Let the requests that are on their way come to their end."""
        if self.ready:
            await self._runner.aclose()
            await self._steps.aclose()
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """The pipeline's answer in MLServer's shape."""
        headers = entry_headers(request_headers(request), request_identity(request))
        answer = await self._runner.answer(self._main, message_from_request(request), headers)
        return response_to_client(self.name, answer.message, answer.headers)

    async def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The chunks of the step that streams, then the answer."""
        headers = entry_headers(request_headers(request), request_identity(request))
        async with closing(self._runner.stream(self._main, message_from_request(request), headers)) as parts:
            async for part in parts:
                yield response_to_client(self.name, part.message, part.headers)

    def _gateway(self, pipeline: str) -> Callable[[Request], Awaitable[Response]]:
        async def infer(request: Request) -> Response:
            if not self.ready:
                return Response(f"pipeline '{pipeline}' is still loading", 503, media_type="text/plain")
            return await gateway_response(self._runner, pipeline, request)

        register_custom_handler(CustomHandler(rest_path=f"/v2/pipelines/{pipeline}/infer"), infer)
        return infer
