"""Runs the support desk of `models/` and `pipelines/` in this process, with a model that answers at once.

Reads commands from standard input, one JSON object on each line (`callers`, `turns`, `round`). Answers each with the
seconds of the whole command and of every turn. `run.py` starts it.
"""

import asyncio
import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from mlserver import ModelSettings, Settings
from mlserver.handlers import DataPlane
from mlserver.server import MLServer
from mlserver.types import InferenceRequest

from mlserver_chat.calls.siblings import data_plane_of

GARBAGE = {"MLSERVER_LLM_GC_THRESHOLD": "10000"}
"""Environment of the desk: the garbage collector's threshold of this suite's image."""
ROOT = Path(__file__).resolve().parent.parent.parent
FAKE = '''
from mlserver_chat import ChatStep, PromptSettings, Runtime
from mlserver_chat.testing import FakeBackend


class Fake(Runtime):
    """Routes by a word and answers at once."""

    settings_class = PromptSettings

    async def load(self):
        self._backend = FakeBackend(lambda messages: "status" if "status of" in messages[-1].text else "support")
        self._step = ChatStep(self, self._backend, self.config, None, "fake")
        return True

    async def handle(self, request):
        self._backend.calls.clear()
        return await self._step.run(request)
'''


def repository(folder: Path) -> Path:
    """Copy the support desk, and replace its model by the fake."""
    for name in ("models", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
    model = folder / "models/support-tiny"
    (model / "fake.py").write_text(FAKE, encoding="utf-8")
    (model / "model-settings.json").write_text('{"name": "support-tiny", "implementation": "fake.Fake"}')
    return folder / "models"


def body(conversation: str, turn: int) -> dict[str, Any]:
    """Return the request of a turn. Every other turn asks for a status."""
    question = f"what is the status of #4821{turn}?" if turn % 2 else "my printer has a paper jam"
    texts = {"memory_id": conversation, "role": "user", "content": question, "type": "text"}
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name, text in texts.items()]
    return {"inputs": inputs}


async def conversation(data_plane: DataPlane, name: str, turns: int) -> list[float]:
    """Run the turns of one caller, and return the seconds of each."""
    seconds: list[float] = []
    for turn in range(turns):
        asked = InferenceRequest.model_validate(body(name, turn))
        began = time.perf_counter()
        answer = await data_plane.infer(asked, "support-chat")
        seconds.append(time.perf_counter() - began)
    history = next(tensor for tensor in answer.outputs if tensor.name == "history")
    assert len(history.data) == min(2 * turns, 10), "every turn is stored"
    return seconds


async def main(folder: Path) -> None:
    os.environ |= {"MLSERVER_LLM_DATA": str(folder), **GARBAGE}
    server = MLServer(Settings(parallel_workers=0, debug=False))
    paths = sorted(repository(folder).glob("*/model-settings.json"))
    models = [ModelSettings.parse_file(str(path)) for path in paths]
    await asyncio.gather(*(server._model_registry.load(settings) for settings in models))
    data_plane = data_plane_of(server)
    for line in sys.stdin:
        asked = json.loads(line)
        names = [f"{asked['round']}-{asked['callers']}-{number}" for number in range(asked["callers"])]
        began = time.perf_counter()
        each = await asyncio.gather(*(conversation(data_plane, name, asked["turns"]) for name in names))
        answer = {"seconds": time.perf_counter() - began, "latencies": [one for turns in each for one in turns]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    uvloop.run(main(Path(sys.argv[1])))
