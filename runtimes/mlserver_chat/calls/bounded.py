"""Reads HTTP answers up to a size, so that no server can fill this process's memory.

Answers are read as they come, without decompression: a few compressed bytes can become gigabytes in one step.
"""

from collections.abc import AsyncIterator

import httpx2


class TooLarge(Exception):
    """An answer, or a line of it, is larger than allowed."""


async def read_body(answer: httpx2.Response, max_bytes: int) -> bytes:
    """Read the body of a streamed answer.

    Raises:
        TooLarge: it has more than `max_bytes` bytes.
    """
    body = bytearray()
    async for chunk in _received(answer):
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge
    return bytes(body)


async def read_lines(answer: httpx2.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """Read the lines of a streamed answer as they come, without their ends.

    Raises:
        TooLarge: a line has more than `max_bytes` bytes.
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
