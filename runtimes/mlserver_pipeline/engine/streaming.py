"""Streams one step of a request: its chunks go to the caller, its whole answer goes on through the pipeline."""

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
"""A chunk of an answer, and the `x-*` headers that the model adds."""

StreamCall = Callable[[str, StepMessage, Mapping[str, str]], AsyncIterator[Chunk]]
"""Calls a model that streams, by its name, with a message and headers."""

CUT = "cut"
"""The `finish_reason` of an answer whose caller left while it was streamed."""


def streamed_steps(graph: Graph, can_stream: Collection[str]) -> frozenset[str]:
    """Return the steps whose chunks a caller gets: the last ones that can stream on each path to the output."""
    behind = {Topic(graph.name, step, "inputs"): graph.behind(step) for step in can_stream if step in graph.steps}
    leading = {sink: after for sink, after in behind.items() if graph.outputs in after}
    return frozenset(sink.owner for sink, after in leading.items() if not (after - {sink}) & leading.keys())


class ChunkFeed:
    """Calls the models of one streamed request. The first of `steps` that fires is streamed.

    Args:
        steps: the steps that may be streamed.
        infer: calls a model without streaming.
        stream: calls a model that streams.
        caller: the caller that the run sees; it leaves if the stream is cut before the streamed step has begun.
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
        """Call a step and return its whole answer; the engine's `Call`. A cut step answers its text so far.

        Raises:
            CallerLeft: the stream was cut before the step had said anything.
        """
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
        """Yield the chunks as they come, each with the parameter `step`, until `end`."""
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    def end(self) -> None:
        """End the chunks."""
        self._chunks.put_nowait(None)

    def cut(self) -> None:
        """Stop the streamed step because the caller has left, or the LLM steps before it if it hasn't begun."""
        self._is_cut = True
        if self._reading is None:
            self._caller.leave()
        else:
            self._reading.cancel()


class StreamedAnswer:
    """Joins the chunks of an answer to the whole answer that the model would have given without streaming.

    The tensor `content` is concatenated, chunks in `output_all` become one completion, and of every other tensor the
    last one counts. `headers` has the headers that the model added, `size` the bytes of all tensors.
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
        """The content so far, in UTF-8."""
        return bytes(self._content)

    def add(self, chunk: StepMessage, added: Mapping[str, str]) -> None:
        """Add a chunk and the headers that the model adds."""
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
        """Return the whole answer. `cut` marks it as incomplete."""
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
