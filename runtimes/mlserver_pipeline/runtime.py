"""The runtime that runs Seldon Pipeline manifests in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request, Response
from mlserver import ModelSettings
from mlserver.handlers.custom import CustomHandler, register_custom_handler
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import Runtime, SettingsError, request_headers, settings_folder
from mlserver_chat.calls.siblings import find_server
from mlserver_chat.requests.identity import arrived_headers
from mlserver_chat.requests.streams import closing

from .api.endpoint import gateway_response
from .api.mesh import INTERNAL, pipeline_of
from .calls.wire import message_from_request, response_to_client
from .engine.runner import entry_headers
from .manifests.loading import load_experiments, load_graphs
from .service import open_service
from .settings import PipelineSettings


class Pipeline(Runtime[PipelineSettings]):
    """Runs the pipelines of its manifests.

    Each pipeline answers at `/v2/pipelines/<pipeline>/infer` as Core 2's gateway does. The model itself stands for the
    pipeline of its own name, or for the first one.
    """

    settings_class = PipelineSettings

    def __init__(self, settings: ModelSettings):
        super().__init__(settings)
        folder = settings_folder(settings)
        self._graphs = load_graphs(self.config.manifest, folder)
        self._experiments = load_experiments(self.config.manifest, folder)
        names = [graph.name for graph in self._graphs]
        self._names = names
        self._main = settings.name if settings.name in names else names[0]
        for index, name in enumerate(names):
            # MLServer collects custom handlers from a model's attributes before it loads the model.
            setattr(self, f"infer_{index}", self._infer_handler(name))
            setattr(self, f"ready_{index}", self._ready_handler(name))

    async def load(self) -> bool:
        """Wait for the models of the steps, and connect to them.

        Raises:
            SettingsError: this is a worker process, or a model is missing or not ready in time.
        """
        server = find_server(self.registry)
        if self.registry is None or server is None:
            raise SettingsError(
                f"model '{self.name}': a pipeline can't run in a worker process; "
                'set "parallel_workers": 0 in settings.json or in the pipeline\'s model-settings.json'
            )
        self._service = await open_service(
            self._graphs, self._experiments, self.config, self.settings, self.registry, server
        )
        self.resources.push_async_callback(self._service.aclose)
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """Return the pipeline's answer in MLServer's shape."""
        headers = entry_headers(arrived_headers(request), request.id or "")
        pipeline = self._requested_pipeline(request)
        answer = await self._service.runner.answer(pipeline, message_from_request(request), headers)
        return response_to_client(self.name, answer.message, answer.headers)

    async def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Yield the chunks of the streamed step, then the pipeline's answer."""
        headers = entry_headers(arrived_headers(request), request.id or "")
        pipeline = self._requested_pipeline(request)
        parts = self._service.runner.stream(pipeline, message_from_request(request), headers)
        async with closing(parts):
            async for part in parts:
                yield response_to_client(self.name, part.message, part.headers)

    def _requested_pipeline(self, request: InferenceRequest) -> str:
        """The pipeline that the mesh has chosen, or the one that the model stands for."""
        if not self._service.has_core2_addressing:
            return self._main
        chosen = pipeline_of(request_headers(request).get(INTERNAL, ""))
        return chosen if chosen in self._names else self._main

    def _infer_handler(self, pipeline: str) -> Callable[[Request], Awaitable[Response]]:
        async def infer(request: Request) -> Response:
            if not self.ready:
                return Response(f"pipeline '{pipeline}' is still loading", 503, media_type="text/plain")
            return await gateway_response(self._service.runner, pipeline, request)

        register_custom_handler(CustomHandler(rest_path=f"/v2/pipelines/{pipeline}/infer"), infer)
        return infer

    def _ready_handler(self, pipeline: str) -> Callable[[], Awaitable[Response]]:
        async def ready() -> Response:
            is_ready = self.ready and await self._service.is_ready(pipeline)
            return Response(status_code=200 if is_ready else 424)

        register_custom_handler(CustomHandler(rest_path=f"/v2/pipelines/{pipeline}/ready", rest_method="GET"), ready)
        return ready
