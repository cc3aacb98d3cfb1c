"""Watching one step's answer while it is made: the chunks go to the caller, the whole goes on through the pipeline."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping

from mlserver_chat import CompletionBuilder, CompletionChunk, UpstreamFailed
from mlserver_chat.errors import CallerLeft
from mlserver_chat.requests.caller import Caller
from mlserver_chat.requests.streams import closing

from ..manifests.graph import Graph
from ..manifests.references import Topic
from .engine import Call
from .messages import Parameter, StepMessage, Tensor

Chunk = tuple[StepMessage, Mapping[str, str]]
"""A piece of an answer, and the `x-*` headers that the model adds."""

StreamCall = Callable[[str, StepMessage, Mapping[str, str]], AsyncIterator[Chunk]]
"""Calls a model that streams: its name, the message and the headers."""

CUT = "cut"
"""The `finish_reason` of an answer whose reader went away."""


def streamed_steps(graph: Graph, can_stream: Collection[str]) -> frozenset[str]:
    """The steps whose chunks a caller gets: those on the way to the output whose model streams, and behind which no
    other such step comes."""
    behind = {Topic(graph.name, step, "inputs"): graph.behind(step) for step in can_stream if step in graph.steps}
    leading = {sink: after for sink, after in behind.items() if graph.outputs in after}
    return frozenset(sink.owner for sink, after in leading.items() if not (after - {sink}) & leading.keys())


class ChunkFeed:
    """The `Call` of one request whose caller watches: the first of `steps` that fires is streamed.

    Args:
        steps: those that may be.
        infer: calls a model as usual.
        stream: calls one that streams.
        caller: leaves when the reader goes away before the streamed step has begun.
        max_bytes: most bytes of the tensors of the streamed answer.
    """

    def __init__(self, steps: frozenset[str], infer: Call, stream: StreamCall, caller: Caller, max_bytes: int):
        self._steps = steps
        self._infer = infer
        self._stream = stream
        self._caller = caller
        self._max_bytes = max_bytes
        self._chunks: asyncio.Queue[StepMessage | None] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None
        self._is_cut = False

    async def __call__(
        self, step: str, message: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        """The step's whole answer; of a streamed step whose reader went away, what it had said until then."""
        if step not in self._steps or self._reading is not None:
            return await self._infer(step, message, headers)
        if self._is_cut:
            raise CallerLeft
        answer = StreamedAnswer()
        self._reading = asyncio.create_task(self._read(step, message, headers, answer))
        try:
            await self._reading
        except asyncio.CancelledError:
            if not self._is_cut:
                self._reading.cancel()
                raise
        is_cut = self._reading.cancelled()
        if is_cut and not answer.text:
            raise CallerLeft
        return answer.message(is_cut), answer.headers

    async def _read(
        self, step: str, message: StepMessage, headers: Mapping[str, str], answer: "StreamedAnswer"
    ) -> None:
        async with closing(self._stream(step, message, headers)) as chunks:
            async for chunk, added in chunks:
                answer.add(chunk, added)
                if answer.size > self._max_bytes:
                    raise UpstreamFailed(f"the answer is longer than the {self._max_bytes} bytes allowed")
                self._chunks.put_nowait(chunk._replace(parameters={**chunk.parameters, "step": step}))

    async def chunks(self) -> AsyncIterator[StepMessage]:
        """The chunks as they come, each with the parameter `step`, until `end`."""
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    def end(self) -> None:
        """Nothing more is to come."""
        self._chunks.put_nowait(None)

    def cut(self) -> None:
        """The reader has gone: stop the streamed step, or what leads to it."""
        self._is_cut = True
        if self._reading is None:
            self._caller.leave()
        else:
            self._reading.cancel()


class StreamedAnswer:
    """Chunks of one answer, put together as the model would have answered without streaming; `headers` are those added.

    Pieces of `content` are joined, chunks in `output_all` become the completion they spell, and of any other tensor the
    latest counts.
    """

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._id = ""
        self._parameters: dict[str, Parameter] = {}
        self._tensors: dict[str, Tensor] = {}
        self._content = bytearray()
        self.size = 0
        self._builder = CompletionBuilder()

    @property
    def text(self) -> bytes:
        """What was said so far, in UTF-8."""
        return bytes(self._content)

    def add(self, chunk: StepMessage, added: Mapping[str, str]) -> None:
        """Take one more chunk, and the headers that the model has added."""
        self.headers |= added
        self._id = chunk.id
        self._parameters |= chunk.parameters
        for tensor in chunk.tensors:
            self._tensors[tensor.name] = tensor
            self.size += sum(len(element) if isinstance(element, bytes) else 8 for element in tensor.data)
            if tensor.name == "content":
                self._content.extend(b"".join(tensor.data))
            if tensor.name == "output_all":
                self._builder.add(CompletionChunk(json.loads(tensor.data[0])))

    def message(self, cut: bool) -> StepMessage:
        """The whole answer; `cut` marks one that was broken off."""
        completion = self._builder.completion()
        whole = dict(self._tensors)
        if "content" in whole:
            whole["content"] = whole["content"]._replace(data=[self.text])
        if "output_all" in whole:
            data = json.dumps(completion.data, ensure_ascii=False).encode("utf-8")
            whole["output_all"] = whole["output_all"]._replace(data=[data])
        if completion.tool_calls:
            calls = [call.encode("utf-8") for call in completion.tool_calls]
            whole["tool_calls"] = Tensor("tool_calls", "BYTES", (len(calls), 1), calls, {"content_type": "str"})
        parameters = self._parameters | ({"finish_reason": CUT} if cut else {})
        return StepMessage(self._id, parameters, tuple(whole.values()))
