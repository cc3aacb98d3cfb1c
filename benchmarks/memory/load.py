"""A load client that costs little: `python load.py PORT`, commands and answers as JSON lines.

`{"model": "null", "connections": 32, "seconds": 3}` answers `{"per_second": …, "client": …}`; `client` is the part of a
core that the client needed. Every connection sends its next request when the answer to the one before is there.
"""

import asyncio
import itertools
import json
import sys
import time
from typing import cast

import uvloop

CONVERSATIONS = 200


class Load:
    """What the connections of one measurement share."""

    def __init__(self, model: str):
        self._head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        self._numbers = itertools.count()
        self.answered = 0
        self.done = False

    def request(self) -> bytes:
        """The next request: a message of a user, a conversation after the other."""
        number = next(self._numbers)
        memory_id = f"conversation {number % CONVERSATIONS}"
        texts = {"memory_id": memory_id, "role": "user", "content": f"message {number}"}
        inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in texts.items()]
        body = json.dumps({"inputs": inputs})
        return f"{self._head}content-length: {len(body)}\r\n\r\n{body}".encode()


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load):
        self._load = load
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's is none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._load.request())

    def data_received(self, data: bytes) -> None:
        """Go on when the answer is whole."""
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return
        assert head.startswith(b"HTTP/1.1 200"), self._data[:500]
        self._data = b""
        self._load.answered += 1
        assert self._transport is not None
        if self._load.done:
            self._transport.close()
        else:
            self._transport.write(self._load.request())


async def measure(port: int, model: str, connections: int, seconds: float) -> dict[str, float]:
    """Requests answered a second, after a moment to get going."""
    load, loop, failures = Load(model), asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: failures.append(str(context)))
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    await asyncio.sleep(seconds / 5)
    began, answered, busy = time.perf_counter(), load.answered, time.process_time()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    result = {"per_second": (load.answered - answered) / took, "client": (time.process_time() - busy) / took}
    load.done = True
    await asyncio.sleep(0.3)
    if failures or not load.answered:
        raise SystemExit(failures[0] if failures else f"{model} answered nothing")
    return result


async def main() -> None:
    for line in sys.stdin:
        answer = await measure(int(sys.argv[1]), **json.loads(line))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
