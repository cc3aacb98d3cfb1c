"""The endpoint `/v2/pipelines/<pipeline>/infer`. It answers as Core 2's pipeline gateway does."""

import zlib

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from mlserver_chat import ChatError, InvalidInput
from mlserver_chat.requests.deadline import Deadline, deadline_scope

from ..engine.runner import IDENTITY, Runner, entry_headers
from .gateway import BadRequest, read_request, write_response


async def gateway_response(runner: Runner, pipeline: str, request: Request) -> Response:
    """Run a pipeline and return its answer. Errors are plain text, with status 400 for bad input or a failed step."""
    headers = entry_headers(request.headers)
    try:
        deadline = Deadline.of_headers(headers)
        message = read_request(await _body(request))
        with deadline_scope(deadline):
            answer = await runner.answer(pipeline, message, headers)
        body = write_response(answer.message)
    except ClientDisconnect:
        return _text(400, "the request broke off", headers[IDENTITY])
    except (BadRequest, InvalidInput) as error:
        return _text(400, str(error), headers[IDENTITY])
    except ChatError as error:
        return _text(int(error.status_code), str(error), headers[IDENTITY])
    except ValueError:
        return _text(500, "the pipeline's answer holds numbers or bytes that JSON can't", headers[IDENTITY])
    return Response(body, headers=dict(answer.headers), media_type="application/json")


async def _body(request: Request) -> bytes:
    """Return the body. MLServer's requests unpack gzip."""
    try:
        return await request.body()
    except (OSError, EOFError, zlib.error):
        raise BadRequest("the body is not gzip, as its content-encoding says") from None


def _text(status: int, sentence: str, identity: str) -> Response:
    return Response(sentence, status, headers={IDENTITY: identity}, media_type="text/plain")
