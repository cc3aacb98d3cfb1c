"""Errors of steps, in the words of Core 2's pipeline gateway."""

from asyncio import CancelledError
from http import HTTPStatus

from mlserver.errors import MLServerError

from mlserver_chat import ChatError
from mlserver_chat.errors import CallerLeft

_GRPC_CODES = {400: "InvalidArgument", 404: "NotFound", 422: "FailedPrecondition", 500: "Internal"}


class StepFailed(ChatError):
    """A step answered with an error, or a request passed a cycle too often.

    The status is 400 as at Core 2's gateway, although steps may have had effects: nothing repeats a pipeline's request
    because of it. Over gRPC it is INVALID_ARGUMENT with the same text.
    """

    status = HTTPStatus.BAD_REQUEST


class StepTimeout(Exception):
    """A step didn't answer in time."""


class RpcFailed(Exception):
    """The server of a step answered with a gRPC error.

    Args:
        code: the gRPC code in Go's spelling, such as `InvalidArgument`.
        sentence: the error's details.
    """

    def __init__(self, code: str, sentence: str):
        super().__init__(sentence)
        self.code = code


def step_error(step: str, error: BaseException) -> str:
    """Describe a step's error as Core 2 does: `<step> : rpc error: code = <gRPC code> desc = <sentence>`.

    The codes are those that MLServer answers over gRPC, since Core 2 calls every step over gRPC.
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
    """Format the error of a step."""
    return f"{step} : rpc error: code = {code} desc = {sentence}"
