"""The requests of the README work on the servers that it names."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from support import ROOT, Server, free_ports, outputs, start_mlserver

README = (ROOT / "README.md").read_text(encoding="utf-8")
CURLS = [block for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if block.startswith("curl")]


def send(curl: str, base: str) -> httpx2.Response:
    """Send the request of a `curl` command to the server at `base`."""
    words = shlex.split(curl)
    url = next(word for word in words if word.startswith("http"))
    body = words[words.index("-d") + 1]
    headers = dict(words[index + 1].split(": ", 1) for index, word in enumerate(words) if word == "-H")
    return httpx2.post(re.sub(r"http://127\.0\.0\.1:\d+", base, url), content=body, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_mlserver(ROOT / "models", tmp_path_factory.mktemp("readme"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The LLMRuntime of examples/openai-api and the test server, started as in the README."""
    tmp = tmp_path_factory.mktemp("api")
    (port,) = free_ports(1)
    double = subprocess.Popen([sys.executable, "-m", "mlserver_chat.testing", "--port", str(port)])
    settings = (ROOT / "examples/openai-api/model-settings.json").read_text(encoding="utf-8")
    (tmp / "openai-api").mkdir()
    (tmp / "openai-api/model-settings.json").write_text(settings.replace("9100", str(port)), encoding="utf-8")
    server = start_mlserver(tmp / "openai-api", tmp, {"OPENAI_API_KEY": "none"})
    wait_for(port)
    yield server
    server.stop()
    double.terminate()
    double.wait(10)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/")
            return
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise AssertionError("the test double did not start")


EXPECTED: list[tuple[str, Callable[[dict[str, list[object]]], bool]]] = [
    ("support-chat", lambda out: "BUG-771" in str(out["content"][0]) and len(out["history"]) == 2),
    ("remember-user", lambda out: json.loads(str(out["history"][-1]))["role"] == "user"),
    ("route-request", lambda out: out["label"] == ["status"] and "status" in out and out["issue_number"] == ["#48213"]),
    ("support-tiny", lambda out: "Wi-Fi" in str(out["content"][0])),
    ("answer-status", lambda out: "INC-3391" in str(out["content"][0])),
    ("openai-api", lambda out: out["role"] == ["assistant"] and bool(out["content"][0])),
]


def test_the_readme_has_one_request_for_each_runtime_and_the_pipeline() -> None:
    assert [name for name, _ in EXPECTED] == [str(re.search(r"v2/\w+/([\w-]+)/", curl)[1]) for curl in CURLS]  # type: ignore[index]


@pytest.mark.parametrize("index", range(len(EXPECTED)), ids=[name for name, _ in EXPECTED])
def test_every_request_of_the_readme_is_answered(index: int, request: pytest.FixtureRequest) -> None:
    name, holds = EXPECTED[index]
    server: Server = request.getfixturevalue("api" if name == "openai-api" else "desk")
    answer = outputs(send(CURLS[index], server.url))
    assert holds(answer), answer


@pytest.mark.parametrize("page", ["classifier", "local", "prompts", "pipeline"])
def test_every_request_of_the_documentation_is_answered(desk: Server, page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    curls = [block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if block.startswith("curl")]
    assert curls
    for curl in curls:
        assert outputs(send(curl, desk.url))


def test_every_file_in_the_readme_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    missing = [link for link in links if not Path(ROOT / link).exists()]
    assert links and not missing
