"""Turns a second of the support desk with a model that answers at once: what everything around the model costs.

`python benchmarks/pipeline/support_desk.py --peer PYTHON` runs the desk of `models/` and `pipelines/` (both memories in
SQLite, classifier, lookup, prompts, pipeline), then the same graph in LangGraph with its SQLite saver. PYTHON is the
interpreter of an environment with `pip install langgraph langgraph-checkpoint-sqlite`. One caller, ten turns a
conversation, no HTTP on either side.
"""

import argparse
import asyncio
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from mlserver import ModelSettings, Settings
from mlserver.server import MLServer
from mlserver.types import InferenceRequest

from mlserver_chat.siblings import data_plane_of
from mlserver_chat.tensors import text_input

ROOT = Path(__file__).resolve().parent.parent.parent
CONVERSATIONS = 10
TURNS = 10
FAKE = '''
from mlserver_chat import ChatStep, PromptSettings, Runtime
from mlserver_chat.testing import FakeBackend


class Fake(Runtime):
    """Routes by a word and answers at once."""

    settings_class = PromptSettings

    async def load(self):
        backend = FakeBackend(lambda messages: "status" if "status of" in messages[-1].text else "support")
        self._step = ChatStep(self, backend, self.config, None, "fake")
        return True

    async def handle(self, request):
        return await self._step.run(request)
'''


def question(turn: int) -> str:
    return f"what is the status of #4821{turn}?" if turn % 2 else "my printer has a paper jam"


def repository(folder: Path) -> list[ModelSettings]:
    """The support desk with the fake in the place of its model."""
    for name in ("models", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
    model = folder / "models/support-tiny"
    (model / "fake.py").write_text(FAKE, encoding="utf-8")
    (model / "model-settings.json").write_text('{"name": "support-tiny", "implementation": "fake.Fake"}')
    return [ModelSettings.parse_file(str(path)) for path in sorted((folder / "models").glob("*/model-settings.json"))]


async def ours() -> float:
    """Turns a second of the support desk."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLSERVER_LLM_DATA"] = folder
        server = MLServer(Settings(parallel_workers=0, debug=False))
        registry = server._model_registry
        models = repository(Path(folder))
        await asyncio.gather(*(registry.load(settings) for settings in models))
        data_plane = data_plane_of(server)
        began = time.perf_counter()
        for conversation in range(CONVERSATIONS):
            for turn in range(TURNS):
                texts = {"memory_id": f"c{conversation}", "role": "user", "content": question(turn), "type": "text"}
                inputs = [text_input(name, [value]) for name, value in texts.items()]
                answer = await data_plane.infer(InferenceRequest(inputs=inputs), "support-chat")
        seconds = time.perf_counter() - began
        history = next(tensor for tensor in answer.outputs if tensor.name == "history")
        assert len(history.data) == 2 * TURNS, "every turn is stored"
        for settings in reversed(models):
            await registry.unload(settings.name)
    return CONVERSATIONS * TURNS / seconds


def peers(python: str) -> float:
    """Turns a second of the same graph in LangGraph."""
    script = Path(__file__).with_name("langgraph_desk.py")
    run = subprocess.run([python, script, str(CONVERSATIONS), str(TURNS)], capture_output=True, text=True, check=True)
    return float(json.loads(run.stdout)["turns_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="interpreter of an environment with langgraph")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    here = asyncio.run(ours())
    print(f"mlserver-llm  {here:8.1f} turns a second")
    if options.peer:
        there = peers(options.peer)
        print(f"LangGraph     {there:8.1f} turns a second, {here / there:.1f} times slower")


if __name__ == "__main__":
    main()
