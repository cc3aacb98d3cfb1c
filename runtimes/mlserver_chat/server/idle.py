"""Closes HTTP connections on which no request arrives.

uvicorn closes a connection 5 s after its last answer. It waits forever for the first request, and for the rest of one
whose headers have begun.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

_MOST_SECONDS_BETWEEN_SWEEPS = 5.0


async def close_idle_connections(connections: Callable[[], Iterable[Any]], timeout: float) -> None:
    """Close, until cancelled, each connection that has waited `timeout` seconds for a request.

    Args:
        connections: the server's HTTP connections now, as uvicorn keeps them.
        timeout: seconds; a connection may live a quarter longer.
    """
    waiting: dict[Any, tuple[Any, float]] = {}
    while True:
        await asyncio.sleep(min(timeout / 4, _MOST_SECONDS_BETWEEN_SWEEPS))
        now = time.monotonic()
        idle = [each for each in connections() if _is_idle(each)]
        # A connection that answered a request since the last sweep starts again.
        before = waiting
        waiting = {
            each: before[each] if each in before and before[each][0] is each.cycle else (each.cycle, now)
            for each in idle
        }
        for each in idle:
            if now - waiting[each][1] >= timeout:
                each.transport.close()


def _is_idle(connection: Any) -> bool:
    if not hasattr(connection, "cycle"):
        # A WebSocket.
        return False
    return connection.cycle is None or bool(connection.cycle.response_complete)
