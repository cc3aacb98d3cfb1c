"""A real MLServer for tests, and the tensors to send to it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def unanswered_port() -> Iterator[int]:
    """Yield a port on which connecting takes forever: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@dataclass
class Server:
    """A running `mlserver start`."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    log: Path

    @property
    def url(self) -> str:
        """Base URL of the REST API."""
        return f"http://127.0.0.1:{self.http_port}"

    def infer(self, model: str, inputs: list[dict[str, object]], **extra: object) -> httpx2.Response:
        """Send tensors to a model."""
        headers = extra.pop("headers", None)
        return httpx2.post(
            f"{self.url}/v2/models/{model}/infer", json={"inputs": inputs, **extra}, headers=headers, timeout=60
        )

    def stop(self, kill: bool = False) -> None:
        """End it, softly or at once."""
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(30)


def text(name: str, *values: str, shape: list[int] | None = None) -> dict[str, object]:
    """A text tensor of a REST request."""
    return {"name": name, "shape": shape or [len(values)], "datatype": "BYTES", "data": list(values)}


def outputs(response: httpx2.Response) -> dict[str, list[object]]:
    """The data of each output tensor; fails with the server's sentence when it is an error."""
    assert response.status_code == 200, response.text
    return {tensor["name"]: tensor["data"] for tensor in response.json()["outputs"]}


def start_mlserver(
    folder: Path, tmp: Path, env: dict[str, str] | None = None, wait: bool = True, cwd: Path | None = None
) -> Server:
    """Start `mlserver start folder` on free ports and wait until it is ready."""
    http, grpc, metrics = free_ports(3)
    log = tmp / f"mlserver-{http}.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLSERVER_")} | {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(http),
        "MLSERVER_GRPC_PORT": str(grpc),
        "MLSERVER_METRICS_PORT": str(metrics),
        "MLSERVER_LLM_DATA": str(tmp / "data"),
        **(env or {}),
    }
    command = Path(sys.executable).with_name("mlserver")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command, "start", folder], cwd=cwd or tmp, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(process, http, grpc, log)
    deadline = time.monotonic() + 120
    while wait:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"mlserver did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
        try:
            if httpx2.get(f"{server.url}/v2/health/ready", timeout=2).is_success:
                break
        except httpx2.HTTPError:
            pass
        time.sleep(0.2)
    return server
