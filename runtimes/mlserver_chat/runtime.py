"""The base class of all runtimes. Reads settings, checks requests, and turns exceptions into errors of the tree."""

import functools
import gc
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar, Generic, TypeVar, cast
from weakref import WeakSet

from mlserver import MLModel, ModelSettings
from mlserver.types import Datatype, InferenceRequest, InferenceResponse, MetadataTensor, Parameters, ResponseOutput

from .calls.siblings import find_registry, find_server
from .causes import cause_chain, log_causes
from .errors import ChatError, InternalError, InvalidInput, SettingsError
from .metrics import count_error, forget_model
from .requests.deadline import Deadline, deadline_scope
from .requests.identity import request_headers
from .requests.streams import closing
from .server import install_guard
from .settings import Settings, load_settings
from .tensors.admission import check_id, check_tensors

logger = logging.getLogger("mlserver.chat")

GC_VARIABLE = "MLSERVER_LLM_GC_THRESHOLD"
"""Environment variable with the first threshold of Python's garbage collector. Unset: Python's default."""


def _without_traceback(record: logging.LogRecord) -> bool:
    """Drop the traceback that MLServer logs with every error over gRPC, if the error is one of the tree."""
    if record.exc_info and isinstance(record.exc_info[1], ChatError):
        record.exc_info = None
    return True


logging.getLogger("mlserver.grpc").addFilter(_without_traceback)

ConfigT = TypeVar("ConfigT", bound=Settings)

_in_use: "WeakSet[Runtime[Any]]" = WeakSet()
"""Models that were not unloaded. To reload a model, MLServer loads the new one before it unloads the old one."""


def _set_gc_threshold() -> None:
    """Set the garbage collector's first threshold, if the operator has set the variable."""
    value = os.environ.get(GC_VARIABLE)
    if value is None:
        return
    if not re.fullmatch("[0-9]{1,9}", value):
        raise SettingsError(f"environment variable '{GC_VARIABLE}' is not an integer of at least 0")
    gc.set_threshold(int(value), *gc.get_threshold()[1:])


def text_metadata(*names: str) -> list[MetadataTensor]:
    """Return the metadata of text tensors."""
    return [MetadataTensor(name=name, datatype=Datatype.BYTES, shape=[-1, 1]) for name in names]


def _refuse_batching(settings: ModelSettings) -> None:
    """Refuse MLServer's adaptive batching, which joins the tensors of several requests."""
    size = settings.max_batch_size
    if size > 1:
        raise SettingsError(f"model '{settings.name}': 'max_batch_size' {size} would mix conversations; expected 0")


def _without_causes(load: Callable[[Any], Awaitable[bool]]) -> Callable[[Any], Awaitable[bool]]:
    """Wrap `load` so that its errors reach MLServer without their causes, whose texts MLServer would log."""

    @functools.wraps(load)
    async def wrapped(self: "Runtime[Any]") -> bool:
        try:
            return await load(self)
        except ChatError as error:
            log_causes(self.name, error, logging.WARNING)
            raise error from None

    return wrapped


def _check_id_of_stream(request: InferenceRequest) -> None:
    """Check the id of a request, and remove a wrong one, because MLServer copies it into every response."""
    try:
        check_id(request)
    except InvalidInput:
        request.id = None
        raise


class Runtime(MLModel, Generic[ConfigT]):
    """Base class of all runtimes.

    A subclass sets `settings_class`, builds its parts in `load`, and registers in `resources` how to close them. It
    answers in `handle` and, if it can stream, in `handle_stream`. MLServer executes the module of a runtime again for
    each model, so the module must hold no state, no metric and no registry.

    Attributes:
        config: the settings, an instance of `settings_class`.
        registry: MLServer's registry of models, or None outside of MLServer.
        resources: closed when the model is unloaded.
    """

    settings_class: ClassVar[type[Settings]]
    input_tensors: ClassVar[Sequence[MetadataTensor]] = ()
    output_tensors: ClassVar[Sequence[MetadataTensor]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "load" in vars(cls):
            setattr(cls, "load", _without_causes(cls.load))  # noqa: B010 - the wrapper has another type

    def __init__(self, settings: ModelSettings):
        super().__init__(settings)
        _refuse_batching(settings)
        _set_gc_threshold()
        self.config = cast(ConfigT, self._load_settings(settings))
        self.registry = find_registry()
        server = find_server(self.registry)
        if server is not None:
            install_guard(server)
        self.resources = AsyncExitStack()
        self.inputs = self.inputs or list(self.input_tensors)
        self.outputs = self.outputs or list(self.output_tensors)
        _in_use.add(self)

    def _load_settings(self, settings: ModelSettings) -> Settings:
        try:
            return load_settings(self.settings_class, settings)
        except SettingsError as error:
            log_causes(settings.name, error, logging.DEBUG)
            raise error from None

    async def unload(self) -> bool:
        """Close `resources`.

        MLServer also calls this after a failed `load`, and on the main process's copy of a worker's model, which was
        never loaded.
        """
        await self.resources.aclose()
        _in_use.discard(self)
        if all(other.name != self.name for other in _in_use):
            forget_model(self.name)
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """Answer a request. Subclasses implement it."""
        raise NotImplementedError

    def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        """Answer a request piece by piece. By default, in one piece."""
        return self._single(request)

    async def _single(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        yield await self.handle(request)

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Check and answer a request from MLServer.

        Raises:
            ChatError: an error of the tree without its causes. Any other exception becomes `InternalError`.
        """
        try:
            check_id(payload)
            check_tensors(payload)
            with deadline_scope(Deadline.of_headers(request_headers(payload))):
                return await self.handle(payload)
        except Exception as error:
            raise self._counted(error) from None

    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> AsyncIterator[InferenceResponse]:
        """Check and answer requests from MLServer piece by piece.

        A stream over REST can't change its status. So an error becomes a last response without outputs and with the
        parameters `error` and `status`.
        """
        async for payload in payloads:
            try:
                _check_id_of_stream(payload)
                check_tensors(payload)
                deadline = Deadline.of_headers(request_headers(payload))
                async with closing(self.handle_stream(payload)) as responses:
                    while True:
                        with deadline_scope(deadline):
                            response = await anext(responses, None)
                        if response is None:
                            break
                        yield response
            except Exception as error:
                clean = self._counted(error)
                yield self.response([], error=str(clean), status=int(clean.status_code))

    def response(self, outputs: Sequence[ResponseOutput], **parameters: Any) -> InferenceResponse:
        """Build a response of this model."""
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            parameters=Parameters(**parameters),
            outputs=list(outputs),
        )

    def _counted(self, error: Exception) -> ChatError:
        clean = self._clean(error)
        count_error(self.name, int(clean.status_code))
        return clean

    def _clean(self, error: Exception) -> ChatError:
        """Return the error for the caller, and log its causes."""
        if isinstance(error, ChatError):
            log_causes(self.name, error)
            return error
        if isinstance(error, RecursionError):
            logger.debug("model '%s': %s", self.name, cause_chain(error))
            return InvalidInput("the request is nested too deeply")
        logger.error("model '%s' failed with %s", self.name, cause_chain(error))
        return InternalError()
