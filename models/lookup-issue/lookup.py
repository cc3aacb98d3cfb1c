"""A plain MLServer model as a step of a pipeline: issue numbers in, their statuses out.

Replace `issues.json` by your own tracker; the pipeline only needs the two tensors. Three habits are worth keeping:
bound the input, search with a timeout, and do slow work in a thread. The event loop serves every other request.
"""

import asyncio
import json
from pathlib import Path

import regex
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import InvalidInput
from mlserver_chat.tensors import read_tensors, required_text, text_output

MAX_NUMBERS = 100
"""Most issue numbers of one request."""
MAX_CHARACTERS = 255
"""Longest issue number, in characters."""
SEARCH_SECONDS = 0.5
"""Longest search for one number. Python's own `re` can't be interrupted; `regex` can."""

_NUMBER = regex.compile(r"[A-Z]+-?[0-9]+|[0-9]+")


class IssueLookup(MLModel):
    """In: `issue_number`. Out: `issue_number` unchanged, and `issue_status`; both BYTES `[n,1]`."""

    async def load(self) -> bool:
        """Read the issues from the file beside this one."""
        self._issues: dict[str, str] = json.loads(Path(__file__).with_name("issues.json").read_text(encoding="utf-8"))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer with the status of each number."""
        numbers = required_text(read_tensors(payload.inputs), "issue_number")
        _check(numbers)
        statuses = await asyncio.to_thread(lambda: [self._status(number) for number in numbers])
        outputs = [text_output("issue_number", numbers), text_output("issue_status", statuses)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)

    def _status(self, number: str) -> str:
        """Look one number up: `#48213`, "case 48213" and `48213` are one issue, as are `inc-3391` and `INC-3391`."""
        if not number.strip():
            return "no issue number given"
        try:
            found = _NUMBER.search(number.upper(), timeout=SEARCH_SECONDS, concurrent=True)
        except TimeoutError:
            raise InvalidInput("tensor 'issue_number' took too long to search; expected an issue number") from None
        return self._issues.get(found[0] if found else "", "not found in the tracker")


def _check(numbers: list[str]) -> None:
    if len(numbers) > MAX_NUMBERS:
        raise InvalidInput(f"tensor 'issue_number' has {len(numbers)} elements; expected at most {MAX_NUMBERS}")
    longest = max(map(len, numbers))
    if longest > MAX_CHARACTERS:
        raise InvalidInput(
            f"tensor 'issue_number' has an element of {longest} characters; expected at most {MAX_CHARACTERS}"
        )
