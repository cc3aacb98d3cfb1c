"""Reads HTTP answers up to a size limit, so that no server can fill the memory of this process.

Answers are read without decompression, because a few compressed bytes could become gigabytes in one step.
"""

from collections.abc import AsyncIterator

import httpx2


class TooLarge(Exception):
    """An answer or one of its lines exceeds the limit."""


async def read_body(answer: httpx2.Response, max_bytes: int) -> bytes:
    """Read the body of an answer.

    Args:
        answer: an answer whose body is still to come.
        max_bytes: most bytes of the body.

    Raises:
        TooLarge: the body is longer.
    """
    body = bytearray()
    async for chunk in _received(answer):
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge
    return bytes(body)


async def read_lines(answer: httpx2.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the lines of an answer as they arrive, without their line ends.

    Args:
        answer: an answer whose body is still to come.
        max_bytes: most bytes of a line.

    Raises:
        TooLarge: a line is longer.
    """
    line = bytearray()
    async for chunk in _received(answer):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield bytes(_grown(line, end, max_bytes)).removesuffix(b"\r")
            line.clear()
        _grown(line, rest, max_bytes)
    if line:
        yield bytes(line)


def _received(answer: httpx2.Response) -> AsyncIterator[bytes]:
    # Without this header, httpx doesn't decompress.
    answer.headers.pop("content-encoding", None)
    return answer.aiter_bytes()


def _grown(line: bytearray, piece: bytes, max_bytes: int) -> bytearray:
    line += piece
    if len(line) > max_bytes:
        raise TooLarge
    return line
