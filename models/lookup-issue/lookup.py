"""A plain MLServer model as a step of a pipeline: issue numbers in, their statuses out.

Put your own tracker in the place of `issues.json`; the pipeline only needs the two tensors.
"""

import json
import re
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat.tensors import read_tensors, required_text, text_output


class IssueLookup(MLModel):
    """In: `issue_number`. Out: `issue_number` as it came, and `issue_status`; both BYTES `[n,1]`."""

    async def load(self) -> bool:
        """Read the issues, which lie beside this file."""
        self._issues: dict[str, str] = json.loads(Path(__file__).with_name("issues.json").read_text(encoding="utf-8"))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The status of each number."""
        numbers = required_text(read_tensors(payload.inputs), "issue_number")
        statuses = [self._status(number) for number in numbers]
        outputs = [text_output("issue_number", numbers), text_output("issue_status", statuses)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)

    def _status(self, number: str) -> str:
        """`#48213`, "case 48213" and `48213` are one issue, as are `inc-3391` and `INC-3391`."""
        if not number.strip():
            return "no issue number given"
        found = re.search(r"[A-Z]+-?[0-9]+|[0-9]+", number.upper())
        return self._issues.get(found[0] if found else "", "not found in the tracker")
