"""Renders Jinja templates within limits, in processes that are killed if they exceed one."""

import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import InvalidInput, RateLimited

MAX_RENDER_SECONDS = 2.0
"""Longest time to render one template, in seconds."""
MAX_RENDERED_CHARACTERS = 4 * 2**20
"""Longest text of one rendered template, in characters."""
MAX_PROCESSES = 4
"""Templates that this server process renders at the same time."""

_PROGRAM = Path(__file__).with_name("jinja_process.py")
_UNDEFINED = re.compile(r"'(\w+)' is undefined")


class _RenderProcess:
    """One running `jinja_process`."""

    def __init__(self) -> None:
        # -P: the folder of the program holds modules that aren't meant to be imported by name.
        command = [sys.executable, "-P", "-X", "utf8", str(_PROGRAM)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self.timed_out = False

    def ask(self, request: str, seconds: float) -> str | None:
        """Return the answer to one line; None if the process ended first, by itself or at the time limit."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._stop)
        timer.start()
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        finally:
            timer.cancel()
        return answer if answer.endswith("\n") else None

    def _stop(self) -> None:
        self.timed_out = True
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class JinjaRenderer:
    """Renders templates in up to `MAX_PROCESSES` processes. A process starts on demand and is reused.

    The processes end with the server, since their input ends.
    """

    def __init__(self) -> None:
        self._idle: queue.LifoQueue[_RenderProcess] = queue.LifoQueue()
        self._places = threading.BoundedSemaphore(MAX_PROCESSES)

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """Return the template with `values` inserted. Blocks, so call it from a worker thread.

        Raises:
            InvalidInput: a name without a value, or a template that fails or exceeds a limit on these values.
            RateLimited: all processes are busy.
        """
        if not self._places.acquire(timeout=MAX_RENDER_SECONDS):
            raise RateLimited("too many prompt templates are rendered at once", retry_after=MAX_RENDER_SECONDS)
        try:
            answer = self._ask(template, values)
        finally:
            self._places.release()
        if answer is None:
            raise InvalidInput(
                f"the prompt's template took over {MAX_RENDER_SECONDS:g} s or too much memory on these values"
            )
        if "undefined" in answer:
            missing = _UNDEFINED.fullmatch(answer["undefined"])
            raise missing_value(missing.group(1)) if missing else _failed("UndefinedError")
        if "failed" in answer:
            raise _failed(answer["failed"])
        return answer["text"]

    def _ask(self, template: str, values: Mapping[str, Any]) -> dict[str, str] | None:
        """Return the answer of a process; None if the process was stopped or died of this request."""
        request = json.dumps({"template": template, "values": values, "max_characters": MAX_RENDERED_CHARACTERS})
        while True:
            process, is_new = self._take()
            line = process.ask(request, MAX_RENDER_SECONDS)
            if line is not None and not process.timed_out:
                self._idle.put(process)
            else:
                process.close()
            if line is not None:
                answer: dict[str, str] = json.loads(line)
                return answer
            # An idle process may have been killed from outside, so only a new one's death tells of this request.
            if is_new or process.timed_out:
                return None

    def _take(self) -> tuple[_RenderProcess, bool]:
        """Return an idle or a new process, and whether it is new."""
        try:
            return self._idle.get_nowait(), False
        except queue.Empty:
            return _RenderProcess(), True

    def close(self) -> None:
        """End the idle processes."""
        while not self._idle.empty():
            self._idle.get_nowait().close()


def missing_value(name: str) -> InvalidInput:
    """Return the error for a placeholder without a value."""
    return InvalidInput(f"the prompt's placeholder '{name}' has no value; expected a tensor for it")


def _failed(reason: str) -> InvalidInput:
    return InvalidInput(f"the prompt's template failed on these values ({reason})")
