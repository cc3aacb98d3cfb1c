"""One subject in a process of its own: `python worker.py SUBJECT WHERE`, commands and answers as JSON lines.

`{"fill": n}` answers `{}`; `{"turns": n}` answers `{"seconds": [...]}`, one figure a turn.
"""

import asyncio
import json
import logging
import sys
import time

import subjects


async def main() -> None:
    logging.disable(logging.WARNING)
    subject: subjects.Subject = getattr(subjects, sys.argv[1])(sys.argv[2])
    length = 0
    for line in sys.stdin:
        command = json.loads(line)
        if "fill" in command:
            await subject.fill(command["fill"])
            length = command["fill"]
            answer: dict[str, object] = {}
        else:
            seconds: list[float] = []
            for _ in range(command["turns"]):
                began = time.perf_counter()
                came = await subject.turn(f"message {length}")
                seconds.append(time.perf_counter() - began)
                length += 1
                assert came == min(length, subjects.WINDOW), f"{came} messages came back"
            answer = {"seconds": seconds}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
