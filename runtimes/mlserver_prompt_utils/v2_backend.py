"""A `ChatBackend` that calls the LLM of another model through V2."""

import time
from collections.abc import AsyncIterator, Sequence

from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import (
    BoundModel,
    Completion,
    CompletionChunk,
    InvalidInput,
    Message,
    Params,
    UpstreamFailed,
    encode_messages,
    request_on_behalf,
)
from mlserver_chat.requests.streams import closing
from mlserver_chat.tensors import Json, as_input, dumps, is_text, loads, text_elements, text_input

_TOOL_TENSORS = ("tools", "tool_choice", "parallel_tool_calls")


class V2Backend:
    """Sends chat tensors to a model, and reads its answer.

    Options are sent as the tensor `llm_parameters`, which every pipeline passes on, and tools as tensors of their own.
    If the answer lacks `output_all`, as with the LLM Module's Local, `role` and `content` are read.

    Args:
        llm: the model to call.
    """

    def __init__(self, llm: BoundModel):
        self._llm = llm

    async def complete(
        self, messages: Sequence[Message], params: Params, *, request: InferenceRequest | None = None
    ) -> Completion:
        """Return the whole answer.

        Raises:
            UpstreamFailed: the model answered something other than chat tensors.
            ChatError: the model reported this error.
        """
        response = await self._llm.infer(_llm_request(messages, params, request))
        return Completion.of_json(_answer(response))

    async def stream(
        self, messages: Sequence[Message], params: Params, *, request: InferenceRequest | None = None
    ) -> AsyncIterator[CompletionChunk]:
        """Yield the answer as it arrives: in one piece if the model doesn't stream. Raises like `complete`."""
        async with closing(self._llm.stream(_llm_request(messages, params, request))) as responses:
            async for response in responses:
                yield _as_chunk(_answer(response))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._llm.aclose()


def _llm_request(messages: Sequence[Message], params: Params, request: InferenceRequest | None) -> InferenceRequest:
    inputs = [as_input(output) for output in encode_messages(messages)]
    if tools := params.get("tools"):
        inputs.append(text_input("tools", [dumps(tool) for tool in tools]))
        for name in ("tool_choice", "parallel_tool_calls"):
            if name in params:
                value = params[name]
                inputs.append(text_input(name, [value if isinstance(value, str) else dumps(value)]))
    options = {name: value for name, value in params.items() if name not in _TOOL_TENSORS}
    if options:
        inputs.append(text_input("llm_parameters", [dumps(options)]))
    return request_on_behalf(request, inputs)


def _answer(response: InferenceResponse) -> Json:
    """Return a response as OpenAI's JSON: its `output_all`, else an object made of `role` and `content`."""
    try:
        tensors = {output.name: text_elements(output) for output in response.outputs if is_text(output)}
        if "output_all" in tensors:
            return loads("".join(tensors["output_all"]))
    except (InvalidInput, ValueError) as error:
        raise UpstreamFailed(f"model '{response.model_name}' answered something other than JSON or text") from error
    if "content" not in tensors:
        raise UpstreamFailed(f"model '{response.model_name}' answered neither 'output_all' nor 'content'")
    message = {"role": "".join(tensors.get("role", ["assistant"])[:1]), "content": "\n".join(tensors["content"])}
    return {
        "id": response.id or "",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": response.model_name,
        "choices": [{"index": 0, "message": message, "finish_reason": None}],
    }


def _as_chunk(data: Json) -> CompletionChunk:
    """Return a chunk unchanged, and a whole completion as the only chunk of its stream."""
    chunk = CompletionChunk.of_json(data)
    if chunk.data.get("object") != "chat.completion":
        return chunk
    choices = [{**choice, "delta": choice.get("message")} for choice in Completion.of_json(data).data["choices"]]
    return CompletionChunk({**chunk.data, "object": "chat.completion.chunk", "choices": choices})
