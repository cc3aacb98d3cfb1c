"""One subject in a process of its own: `python worker.py MODULE SUBJECT`, commands and answers as JSON lines.

A command names a method of the subject and its arguments, `{"call": "turns", "with": {"length": 50, "count": 10}}`;
the answer is what the method returns.
"""

import gc
import importlib
import json
import logging
import sys

import uvloop


async def main() -> None:
    logging.disable(logging.WARNING)
    # As in a process that serves: docs/runtimes.md.
    gc.set_threshold(10_000, 10, 10)
    subject = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])()
    for line in sys.stdin:
        command = json.loads(line)
        answer = await getattr(subject, command["call"])(**command["with"])
        print(json.dumps(answer), flush=True)


# The loop that MLServer runs on.
uvloop.run(main())
