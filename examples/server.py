"""Starts `mlserver start models` for the demo and for `make serve`, with clear errors."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parent.parent
PORTS = {"MLSERVER_HTTP_PORT": 8080, "MLSERVER_GRPC_PORT": 8081, "MLSERVER_METRICS_PORT": 8082}
"""MLServer's ports and their defaults."""

START_SECONDS = 120
STOP_SECONDS = 10


class ServerFailed(Exception):
    """The server did not start. The text is one line for the user."""


def free_ports() -> dict[str, str]:
    """Return three ports that are free now, as environment variables."""
    sockets = [socket.socket() for _ in PORTS]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(PORTS, ports, strict=True))


def chosen_ports() -> dict[str, str]:
    """Return the ports from the environment, or MLServer's defaults.

    They are checked first, because MLServer reports a port in use with a hundred lines.

    Raises:
        ServerFailed: a port is in use.
    """
    ports = {name: os.environ.get(name, str(default)) for name, default in PORTS.items()}
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", int(port)))
            except OSError:
                raise ServerFailed(f"port {port} is in use; choose another: {name}=<port> make serve") from None
    return ports


def environment(ports: Mapping[str, str], data: Path) -> dict[str, str]:
    """Return the environment of a server on `ports` that keeps its data in the folder `data`."""
    data.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "MLSERVER_HOST": "127.0.0.1", "MLSERVER_LLM_DATA": str(data), **ports}


def command(models: Path) -> list[str]:
    """Return the command line that serves the repository `models`."""
    return [str(Path(sys.executable).with_name("mlserver")), "start", str(models)]


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path | None) -> None:
    """Wait until the server answers.

    Raises:
        ServerFailed: the server ended, or took longer than `START_SECONDS`.
    """
    where = f"; see {log}" if log else ""
    deadline = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None:
            raise ServerFailed(f"the server ended with status {process.returncode}{where}")
        if time.monotonic() > deadline:
            raise ServerFailed(f"the server was not ready after {START_SECONDS} s{where}")
        with suppress(httpx2.HTTPError):
            if httpx2.get(f"{url}/v2/health/ready", timeout=2).is_success:
                return
        time.sleep(0.1)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Terminate the server, or kill it if it doesn't end in time."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def running(models: Path, data: Path, log: Path) -> Iterator[str]:
    """Run a server on free ports with its log in the file `log`. Yields its URL and stops the server at the end."""
    ports = free_ports()
    url = f"http://127.0.0.1:{ports['MLSERVER_HTTP_PORT']}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(models), env=environment(ports, data), stdout=output, stderr=subprocess.STDOUT, cwd=data
        )
    try:
        wait_until_ready(process, url, log)
        yield url
    finally:
        stop(process)
