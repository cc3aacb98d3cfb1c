"""What all tests share: a real MLServer (`support.py`), and no way out of the loopback interface."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from support import Server, start_mlserver

# A busy machine is no failure.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test can reach beyond this machine."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(_LOOPBACK):  # type: ignore[index]
            raise AssertionError(f"a test tried to connect to {address}")
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_TOKEN")) or name.startswith("MLSERVER_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """A factory: `mlserver({"name": settings_dict, …}, workers=0, env={…}, files={"name/x.json": "…"})` writes a model
    repository with a `model-settings.json` for each name and serves it until the module's tests are done.
    `mlserver(path)` serves a copy of that folder."""
    servers: list[Server] = []

    def start(
        models: dict[str, dict[str, object]] | Path,
        workers: int | None = 0,
        env: dict[str, str] | None = None,
        files: dict[str, str] | None = None,
        tmp: Path | None = None,
    ) -> Server:
        tmp = tmp or tmp_path_factory.mktemp("served")
        folder = tmp / "models"
        if isinstance(models, Path):
            shutil.copytree(models, folder, dirs_exist_ok=True)
        else:
            for name, settings in models.items():
                (folder / name).mkdir(parents=True, exist_ok=True)
                (folder / name / "model-settings.json").write_text(
                    json.dumps({"name": name, **settings}), encoding="utf-8"
                )
        for name, content in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        if workers is not None:
            settings = json.dumps({"parallel_workers": workers, "debug": False})
            (folder / "settings.json").write_text(settings, encoding="utf-8")
        server = start_mlserver(folder, tmp, env)
        servers.append(server)
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()
