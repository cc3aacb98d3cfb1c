"""Puts the guard in front of a running MLServer."""

import asyncio
import math

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from mlserver import MLServer
from starlette.responses import JSONResponse

from ..calls.siblings import guard_grpc_messages, rest_app_of, rest_connections_of
from ..errors import RateLimited
from ..limits import server_limits
from .grpc_guard import check_message
from .idle import close_idle_connections
from .rest_guard import RestGuard
from .v2_json import validation_errors


def install_guard(server: MLServer) -> None:
    """Guard `server` over REST and gRPC. Every model of the suite calls it, and the first call counts.

    Models are constructed while the servers start, so their applications exist already.
    """
    app = rest_app_of(server)
    if isinstance(app.middleware_stack, RestGuard):
        return
    app.add_exception_handler(RateLimited, _rate_limited)
    app.add_exception_handler(RequestValidationError, validation_errors)
    app.middleware_stack = RestGuard(app.build_middleware_stack())
    guard_grpc_messages(check_message)
    sweeping = close_idle_connections(lambda: rest_connections_of(server), server_limits().request_timeout)
    # The application keeps the task alive.
    app.state.mlserver_llm_sweeper = asyncio.create_task(sweeping)


async def _rate_limited(_: Request, error: Exception) -> JSONResponse:
    """MLServer's answer to an error, with the header `Retry-After`."""
    assert isinstance(error, RateLimited)
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    return JSONResponse({"error": str(error)}, int(error.status_code), headers)
