"""The one error that only a pipeline has: a step's own error, in the words of Core 2's gateway."""

from asyncio import CancelledError
from http import HTTPStatus

from mlserver.errors import MLServerError

from mlserver_chat import ChatError
from mlserver_chat.errors import CallerLeft

_GRPC_CODES = {400: "InvalidArgument", 404: "NotFound", 422: "FailedPrecondition", 500: "Internal"}


class StepFailed(ChatError):
    """A step answered with an error, or a request went round a cycle too often.

    Status 400 although steps may have had effects: it is what Core 2's gateway answers, and nothing sends a pipeline's
    request again because of it. Over gRPC MLServer makes it INVALID_ARGUMENT with the same text.
    """

    status = HTTPStatus.BAD_REQUEST


class StepTimeout(Exception):
    """A step did not answer in time."""


class RpcFailed(Exception):
    """A step's server answered with this gRPC code, in Go's spelling, and this sentence."""

    def __init__(self, code: str, sentence: str):
        super().__init__(sentence)
        self.code = code


def step_error(step: str, error: BaseException) -> str:
    """The text of a step's error: `<step> : rpc error: code = <gRPC code> desc = <sentence>`.

    The codes are those that MLServer answers over gRPC, which is how Core 2 calls every step.
    """
    if isinstance(error, StepTimeout):
        return rpc_error(step, "DeadlineExceeded", "context deadline exceeded")
    if isinstance(error, CallerLeft):
        return rpc_error(step, "Canceled", "the caller went away")
    if isinstance(error, CancelledError):
        return rpc_error(step, "Canceled", "context canceled")
    if isinstance(error, RpcFailed):
        return rpc_error(step, error.code, str(error))
    code = _GRPC_CODES.get(int(error.status_code), "Unknown") if isinstance(error, MLServerError) else "Internal"
    return rpc_error(step, code, str(error))


def rpc_error(step: str, code: str, sentence: str) -> str:
    """The text of an error of `step` with this gRPC code."""
    return f"{step} : rpc error: code = {code} desc = {sentence}"
