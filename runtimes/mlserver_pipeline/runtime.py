"""The runtime: a Seldon Pipeline manifest, run in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request, Response
from mlserver import ModelSettings
from mlserver.handlers.custom import CustomHandler, register_custom_handler
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import Runtime, SettingsError, request_headers, request_identity, settings_folder
from mlserver_chat.calls.siblings import find_server
from mlserver_chat.requests.streams import closing

from .api.endpoint import gateway_response
from .api.mesh import INTERNAL, pipeline_of
from .calls.wire import message_from_request, response_to_client
from .engine.runner import entry_headers
from .manifests.loading import load_experiments, load_graphs
from .service import open_service
from .settings import PipelineSettings


class Pipeline(Runtime[PipelineSettings]):
    """Runs the pipelines of its manifests: each at `/v2/pipelines/<pipeline>/infer`, in the shape of Core 2's gateway,
    and the one that bears the model's name (else the first) as an ordinary model."""

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
            # MLServer looks for handlers among the attributes of a model, before it loads it.
            setattr(self, f"infer_{index}", self._infer_handler(name))
            setattr(self, f"ready_{index}", self._ready_handler(name))

    async def load(self) -> bool:
        """Wait for the steps' models."""
        server = find_server(self.registry)
        if self.registry is None or server is None:
            raise SettingsError(
                f"model '{self.name}': a pipeline can't run in a worker process; "
                'set "parallel_workers": 0 in settings.json or in the pipeline\'s model-settings.json'
            )
        self._service = await open_service(
            self._graphs, self._experiments, self.config, self.settings, self.registry, server
        )
        return True

    async def unload(self) -> bool:
        """Let the requests that are on their way come to their end."""
        if self.ready:
            await self._service.aclose()
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """The pipeline's answer in MLServer's shape."""
        headers = entry_headers(request_headers(request), request_identity(request))
        answer = await self._service.runner.answer(self._asked(request), message_from_request(request), headers)
        return response_to_client(self.name, answer.message, answer.headers)

    async def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """The chunks of the step that streams, then the answer."""
        headers = entry_headers(request_headers(request), request_identity(request))
        parts = self._service.runner.stream(self._asked(request), message_from_request(request), headers)
        async with closing(parts):
            async for part in parts:
                yield response_to_client(self.name, part.message, part.headers)

    def _asked(self, request: InferenceRequest) -> str:
        """The pipeline that the mesh has chosen among those of this model, else the main one."""
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
