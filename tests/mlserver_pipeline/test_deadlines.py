"""The request's deadline and `step_timeout` end steps, decide the answer, and reach every step in a header."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress

import grpc
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server

from mlserver_chat import NotReachable, UpstreamFailed
from mlserver_chat.requests.deadline import DEADLINE_HEADER, Deadline, deadline_scope
from mlserver_pipeline.calls.remote import open_server
from mlserver_pipeline.calls.timed import TimedSteps
from mlserver_pipeline.engine.engine import TimedOut
from mlserver_pipeline.engine.errors import RpcFailed, StepFailed, StepTimeout, step_error
from mlserver_pipeline.engine.messages import StepMessage, Tensor
from mlserver_pipeline.engine.runner import Runner, Streaming
from mlserver_pipeline.engine.streaming import Chunk
from pipeline_lab import Lab, emits, ints, message

MakeLab = Callable[..., Lab]
TWO = "steps: [{name: a}, {name: b, inputs: [a]}]\noutput: {steps: [b]}"
JOINED = """
steps:
- {name: a}
- {name: b, inputs: [a]}
- {name: c, inputs: [a, b], inputsJoinType: outer}
output: {steps: [c]}
"""


async def forever(_: StepMessage) -> StepMessage:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def timed(it: Lab, seconds: float) -> Lab:
    it.engine.around = lambda call: TimedSteps(call, seconds)
    return it


def milliseconds(headers: Mapping[str, str]) -> int:
    return int(headers[DEADLINE_HEADER])


async def test_step_over_step_timeout_fails_with_deadline_exceeded(lab: MakeLab) -> None:
    runner = Runner(timed(lab({"a": forever}, TWO), 0.05).engine)
    with pytest.raises(StepFailed, match="a : rpc error: code = DeadlineExceeded desc = context deadline exceeded"):
        await runner.answer("p", message(ints("i", 1)), {})


async def test_step_timeout_bounds_a_stream_as_a_whole(lab: MakeLab) -> None:
    async def endless(step: str, sent: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        while True:
            yield message(Tensor("content", "BYTES", (1, 1), [b"."], {})), {}
            await asyncio.sleep(0.01)

    it = timed(lab({"keep": emits("x")}, "steps: [{name: talk}]\noutput: {steps: [talk]}"), 0.1)
    stream = Runner(it.engine, streaming=Streaming({"p": frozenset({"talk"})}, endless))
    with pytest.raises(StepFailed, match="talk : rpc error: code = DeadlineExceeded"):
        async for _ in stream.stream("p", message(ints("i", 1)), {}):
            pass


async def test_chunks_carry_no_deadline(lab: MakeLab) -> None:
    async def once(step: str, sent: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        yield message(Tensor("content", "BYTES", (1, 1), [b"hi"], {})), {}

    it = lab({}, "steps: [{name: talk}]\noutput: {steps: [talk]}")
    stream = Runner(it.engine, streaming=Streaming({"p": frozenset({"talk"})}, once))
    headers = {DEADLINE_HEADER: "5000", "x-color": "red"}
    parts = [part async for part in stream.stream("p", message(ints("i", 1)), headers)]
    assert len(parts) == 2 and parts[0].headers == {"x-color": "red"}
    assert DEADLINE_HEADER not in parts[1].headers


async def test_streamed_answer_is_bounded_in_bytes(lab: MakeLab) -> None:
    async def endless(step: str, sent: StepMessage, headers: Mapping[str, str]) -> AsyncIterator[Chunk]:
        while True:
            yield message(Tensor("content", "BYTES", (1, 1), [b"x" * 100], {})), {}

    it = lab({}, "steps: [{name: talk}]\noutput: {steps: [talk]}")
    stream = Runner(it.engine, streaming=Streaming({"p": frozenset({"talk"})}, endless, 1000))
    with pytest.raises(StepFailed, match="longer than the 1000 bytes allowed"):
        async for _ in stream.stream("p", message(ints("i", 1)), {}):
            pass


async def test_deadline_answers_424_and_cancels_running_steps(lab: MakeLab) -> None:
    it = timed(lab({"a": emits("x"), "b": forever}, TWO), 60)
    with deadline_scope(Deadline.after(0.05)), pytest.raises(UpstreamFailed, match="before the pipeline answered"):
        await Runner(it.engine).answer("p", message(ints("i", 1)), {})
    with deadline_scope(Deadline.after(0.05)):
        run = it.start(ints("i", 1))
    await run.done
    assert run.outcome.result() == TimedOut(has_called_step=True)
    (_, b) = run.traces[:2]
    assert b.error == "b : rpc error: code = DeadlineExceeded desc = context deadline exceeded"


async def test_step_that_watches_the_deadline_itself_does_not_change_the_answer(lab: MakeLab) -> None:
    async def gives_up(_: StepMessage) -> StepMessage:
        await asyncio.sleep(0.046)
        raise UpstreamFailed("no time left")

    it = timed(lab({"a": gives_up}, TWO), 60)
    with deadline_scope(Deadline.after(0.05)), pytest.raises(UpstreamFailed, match="before the pipeline answered"):
        await Runner(it.engine).answer("p", message(ints("i", 1)), {})


async def test_deadline_that_passed_before_answers_503_and_calls_no_step(lab: MakeLab) -> None:
    it = timed(lab({"a": emits("x"), "b": emits("x")}, TWO), 60)
    with deadline_scope(Deadline.after(0)), pytest.raises(NotReachable, match="before a step was called"):
        await Runner(it.engine).answer("p", message(ints("i", 1)), {})
    assert it.calls == []


async def test_no_step_starts_after_the_deadline(lab: MakeLab) -> None:
    def blocks(_: StepMessage) -> StepMessage:
        time.sleep(0.06)
        return message(ints("x", 1))

    it = timed(lab({"a": blocks, "b": emits("x")}, TWO), 60)
    with deadline_scope(Deadline.after(0.05)), pytest.raises(UpstreamFailed, match="before the pipeline answered"):
        await Runner(it.engine).answer("p", message(ints("i", 1)), {})
    assert [step for step, _ in it.calls] == ["a"]


async def test_every_step_gets_the_time_that_is_left(lab: MakeLab) -> None:
    async def slow(_: StepMessage) -> StepMessage:
        await asyncio.sleep(0.05)
        return message(ints("x", 1))

    it = timed(lab({"a": slow, "b": slow, "c": emits("y")}, JOINED), 60)
    with deadline_scope(Deadline.after(30)):
        answer = await Runner(it.engine).answer("p", message(ints("i", 1)), {DEADLINE_HEADER: "999999"})
    a, b, c = map(milliseconds, it.headers)
    assert 30_000 >= a > b + 40 and b > c + 40
    assert DEADLINE_HEADER not in answer.headers


async def test_step_gets_step_timeout_if_that_comes_sooner(lab: MakeLab) -> None:
    it = timed(lab({"a": emits("x"), "b": emits("x")}, TWO), 2)
    with deadline_scope(Deadline.after(30)):
        await Runner(it.engine).answer("p", message(ints("i", 1)), {})
    assert all(1900 < milliseconds(headers) <= 2000 for headers in it.headers)


async def test_deadline_header_in_an_answer_is_dropped() -> None:
    async def echoes(step: str, sent: StepMessage, headers: Mapping[str, str]) -> tuple[StepMessage, Mapping[str, str]]:
        return sent, headers

    _, added = await TimedSteps(echoes, 60)("a", message(), {"x-color": "red"})
    assert added == {"x-color": "red"}


class Trickle(GRPCInferenceServiceServicer):
    """Streams small chunks without end. Unary calls never end, but those of `big` get a large answer at once."""

    async def ModelInfer(self, request: pb.ModelInferRequest, context: object) -> pb.ModelInferResponse:
        if request.model_name != "big":
            await asyncio.Event().wait()
        contents = pb.InferTensorContents(bytes_contents=[b"x" * 4096])
        output = pb.ModelInferResponse.InferOutputTensor(name="x", shape=[1], datatype="BYTES", contents=contents)
        return pb.ModelInferResponse(outputs=[output])

    async def ModelStreamInfer(self, requests: object, context: object) -> AsyncIterator[pb.ModelInferResponse]:
        while True:
            yield pb.ModelInferResponse()
            await asyncio.sleep(0.05)


@asynccontextmanager
async def over_grpc() -> AsyncGenerator[str]:
    server = grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(Trickle(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"grpc://127.0.0.1:{port}"
    await server.stop(0)


@asynccontextmanager
async def over_rest() -> AsyncGenerator[str]:
    """Run a server that sends its answer byte by byte without end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        kind = b"text/event-stream" if b"infer_stream" in request else b"application/json"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ncontent-length: 1000000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        hung_up.set()

    hung_up = asyncio.Event()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await hung_up.wait()


@pytest.mark.parametrize("trickling", [over_grpc, over_rest])
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_trickling_server_does_not_outlive_step_timeout(
    trickling: Callable[[], AbstractAsyncContextManager[str]], is_streamed: bool
) -> None:
    async def streamed(
        step: str, sent: StepMessage, headers: Mapping[str, str]
    ) -> tuple[StepMessage, Mapping[str, str]]:
        return [chunk async for chunk in remote.stream(step, sent, headers)][-1]

    async with trickling() as uri, aclosing(open_server(uri, 60, 2**20)) as remote:
        with pytest.raises(StepTimeout):
            await TimedSteps(streamed if is_streamed else remote, 0.3)("a", message(ints("i", 1)), {})


async def test_grpc_answer_over_max_response_bytes_is_refused() -> None:
    async with over_grpc() as uri, aclosing(open_server(uri, 60, 1024)) as remote:
        with pytest.raises(RpcFailed) as refused:
            await remote("big", message(ints("i", 1)), {})
    assert step_error("big", refused.value).startswith("big : rpc error: code = ResourceExhausted desc = ")
