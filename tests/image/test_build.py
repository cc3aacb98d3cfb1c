"""The image of the memory, built step by step in a folder, and run as Core 2 runs it."""

import json
import re
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from image_build import Image, health_command, normal, server_command
from support import ROOT, free_ports, outputs, text

MODEL = "remember-user"
GENERATION = f"{MODEL}_1"
"""Name by which Core 2's agent loads the first generation of a model."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    extras = re.search(r"^EXTRAS_memory := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert extras
    image = Image(tmp_path_factory.mktemp("image"), {"EXTRAS": extras[1]})
    try:
        image.build()
    except AssertionError:
        if "Retrying (Retry" in image.output and "(from versions: none)" in image.output:
            pytest.skip("no package index can be reached")
        raise
    return image


def test_an_unknown_extra_fails_before_the_installation(tmp_path: Path) -> None:
    image = Image(tmp_path, {"EXTRAS": "postgres,memroy"})
    with pytest.raises(AssertionError):
        image.build()
    assert "EXTRAS: {'memroy'} not among ['all', 'classifier', " in image.output
    assert not image.path("/opt/venv").exists()


def test_the_image_contains_only_the_memory_and_its_drivers(image: Image) -> None:
    packages = image.packages()
    assert {"mlserver", "mlserver-llm", "sqlalchemy", "psycopg", "pg8000", "pymysql"} <= set(packages)
    assert not {"torch", "transformers", "openai", "pytest", "ruff"} & set(packages)


def test_every_package_has_the_tested_version(image: Image) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {normal(name): version for name, _, version in (line.partition("==") for line in lines) if version}
    found = {name: version for name, version in image.packages().items() if name != "mlserver-llm"}
    assert found.items() <= pins.items()


def test_the_image_contains_no_installer_and_no_cache(image: Image) -> None:
    assert not {"pip", "wheel"} & set(image.packages())
    for python in ("/opt/venv/bin/python", "/usr/local/bin/python"):
        assert subprocess.run([image.path(python), "-m", "pip"], capture_output=True).returncode != 0
    programs = [path.name for folder in ("/opt/venv/bin", "/usr/local/bin") for path in image.path(folder).iterdir()]
    assert [name for name in programs if re.match(r"pip|easy_install|wheel|gcc|cc$|make", name)] == []
    assert not list(image.root.rglob("*.whl"))


def test_the_only_user_is_1000(image: Image) -> None:
    assert "--uid 1000 " in (image.root / "users").read_text(encoding="utf-8")


def as_the_agent_writes_it(models: Path) -> None:
    """Write the folder of a model as Core 2's agent does: renamed, with the parameters of the manifest as text."""
    settings: dict[str, Any] = json.loads((ROOT / "models" / MODEL / "model-settings.json").read_text(encoding="utf-8"))
    settings["name"] = GENERATION
    settings["parameters"]["version"] = "1"
    settings["parameters"]["extra"] |= {"config.window_size": "5"}
    folder = models / GENERATION / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")


@contextmanager
def running(image: Image, workers: int, log: Path) -> Generator[tuple[httpx2.Client, dict[str, str]]]:
    """Run the command of the image with the variables of Core 2. SIGTERM must end it with exit code 0."""
    http, grpc, metrics = (str(port) for port in free_ports(3))
    environment = image.environment() | {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": http,
        "MLSERVER_GRPC_PORT": grpc,
        "MLSERVER_METRICS_PORT": metrics,
        "MLSERVER_MODELS_DIR": str(image.path("/mnt/agent/models")),
        "MLSERVER_PARALLEL_WORKERS": str(workers),
        "MLSERVER_LOAD_MODELS_AT_STARTUP": "false",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            server_command(), cwd=image.path("/opt/mlserver"), env=environment, stdout=output, stderr=output
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{http}", timeout=120) as client:
            deadline = time.monotonic() + 120
            while healthy(environment) is not True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")
                time.sleep(0.2)
            yield client, environment
        process.terminate()
        assert process.wait(60) == 0, log.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


def healthy(environment: dict[str, str]) -> bool:
    """Return whether the image's health check passes."""
    return subprocess.run(health_command(), env=environment, stderr=subprocess.DEVNULL).returncode == 0


def unwritten(image: Image) -> dict[str, int]:
    """Return the modification times of all files outside the mounted folders of a read-only container."""
    writable = (image.path("/tmp"), image.path("/var/lib"))
    return {
        str(path): path.stat().st_mtime_ns
        for path in image.root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(folder) for folder in writable)
    }


def test_core_2_loads_a_model_and_conversations_survive_a_restart(image: Image, tmp_path: Path) -> None:
    as_the_agent_writes_it(image.path("/mnt/agent/models"))
    before = unwritten(image)
    # Core 2's ServerConfig sets one worker process, and the manifests of this project set none.
    for turn, workers in enumerate((1, 0), start=1):
        with running(image, workers, tmp_path / f"{workers}.log") as (client, environment):
            assert client.post(f"/v2/repository/models/{GENERATION}/load").status_code == 200
            message = [
                text("memory_id", "me"),
                text("role", "user"),
                text("content", f"turn {turn}"),
                text("type", "text"),
            ]
            answer = outputs(client.post(f"/v2/models/{GENERATION}/infer", json={"inputs": message}))
            assert len(answer["history"]) == turn
            assert client.post(f"/v2/repository/models/{GENERATION}/unload").status_code == 200
        assert not healthy(environment)
    assert unwritten(image) == before
