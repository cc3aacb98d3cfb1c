"""`/v2/pipelines/<pipeline>/infer`, with the answers of Core 2's pipeline gateway."""

from fastapi import Request, Response

from mlserver_chat import ChatError

from .gateway import BadRequest, read_request, write_response
from .runner import IDENTITY, Runner, entry_headers


async def gateway_response(runner: Runner, pipeline: str, request: Request) -> Response:
    """The pipeline's answer to a request. Errors are plain text: 400 for a bad body and for a step's error."""
    headers = entry_headers(request.headers)
    try:
        answer = await runner.answer(pipeline, read_request(await request.body()), headers)
        body = write_response(answer.message)
    except BadRequest as error:
        return _text(400, str(error), headers[IDENTITY])
    except ChatError as error:
        return _text(int(error.status_code), str(error), headers[IDENTITY])
    except ValueError:
        return _text(500, "the pipeline's answer holds numbers or bytes that JSON can't", headers[IDENTITY])
    return Response(body, headers=dict(answer.headers), media_type="application/json")


def _text(status: int, sentence: str, identity: str) -> Response:
    return Response(sentence, status, headers={IDENTITY: identity}, media_type="text/plain")
