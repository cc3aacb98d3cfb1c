"""Everything that docs/deploy-core2.md names exists, and its commands and requests work."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import click
import httpx2
import pytest
import yaml
from mlserver.settings import Settings

from mlserver_llm_cli.main import main
from support import ROOT, Server, outputs, start_mlserver

PAGE = (ROOT / "docs/deploy-core2.md").read_text(encoding="utf-8")
BASH: list[str] = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
PYTHON: str = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
CODE: list[str] = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
LINES = [*"".join(BASH).replace("\\\n", " ").splitlines(), *CODE]

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MANIFESTS = [*sorted((ROOT / "manifests").rglob("*.yaml")), ROOT / "pipelines/support-chat.yaml"]
DOCUMENTS: list[dict[str, Any]] = [
    each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
OTHER_PAGES = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("[!d]*.md"))
DEPLOYED = "".join(path.read_text(encoding="utf-8") for path in [ROOT / "Dockerfile", *MANIFESTS])

NOT_OURS = {
    # Core 2
    *("spec.llm.modelRef", "spec.parameters", "parameters.extra", "dataflow.cleanTopicsOnDelete"),
    *("serverConfig.mlserver.modelVolumeStorage", "autoscaling.autoscalingModelEnabled"),
    *("MODELGATEWAY_NUM_WORKERS", "MODELGATEWAY_WORKER_TIMEOUT_MS"),
    # rclone, PostgreSQL, SQLAlchemy, the Hugging Face Hub
    *("service_account_credentials", "max_connections", "max_overflow", "HF_HOME"),
}
"""Settings of other projects on the page."""


def commands(program: str) -> list[list[str]]:
    """Return the words of each command line of a program, even if it runs in a pod."""
    lines = [line.rpartition(" -- ")[2].strip() for line in LINES]
    return [shlex.split(line) for line in lines if re.match(rf"(\.venv/bin/)?{program} ", line)]


def test_every_file_on_the_page_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    named = re.findall(r"(?<![\w/:.-])(?:manifests|pipelines|models|docs)/[\w./-]*[\w/]", " ".join(LINES))
    components = re.findall(r"\.\./\.\./components/\w+", PAGE)
    assert links and named and components
    missing = [link for link in links if not (ROOT / "docs" / link).exists()]
    made = re.findall(r" > (\S+)$", "\n".join(LINES), re.MULTILINE)
    missing += [path for path in named if not (ROOT / path).exists() and path not in made]
    missing += [path for path in made if "/" in path and not (ROOT / path).parent.exists()]
    missing += [path for path in components if not (ROOT / "manifests/overlays/production" / path).exists()]
    assert not missing


def test_every_resource_on_the_page_is_in_the_manifests() -> None:
    known = {each["metadata"]["name"] for each in DOCUMENTS if "metadata" in each}
    ours = r"(?<![\w.-])(?:mlserver-llm|support|remember|answer|route|lookup)-[a-z0-9-]*[a-z0-9]"
    named = {re.sub(r"-0$", "", name) for name in re.findall(ours, PAGE)}
    assert len(named) > 12
    assert named - known == set()


def test_every_make_target_and_image_on_the_page_exists() -> None:
    assert len(commands("make")) > 4
    for _, target, *variables in commands("make"):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)
        for name, _, value in (variable.partition("=") for variable in variables if "=" in variable):
            assert re.search(rf"^{name} \?=", MAKEFILE, re.MULTILINE)
            assert name != "RUNTIME" or value == "$runtime" or f"EXTRAS_{value} :=" in MAKEFILE
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (chosen,) = re.findall(r"--build-arg EXTRAS=(\S+)", PAGE)
    assert set(chosen.split(",")) <= set(extras)


def test_every_mlserver_llm_command_on_the_page_exists() -> None:
    assert len(commands("mlserver-llm")) > 5
    for _, *words in commands("mlserver-llm"):
        command: click.Command = main
        while isinstance(command, click.Group) and words:
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("block", BASH)
def test_every_shell_block_on_the_page_parses(block: str) -> None:
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_every_setting_on_the_page_exists() -> None:
    keys = {word for word in CODE if re.fullmatch(r"[a-z]+(?:[._][A-Za-z]+)+", word)} - NOT_OURS
    assert len(keys) > 10
    # Settings are in the generated tables of the runtimes' pages, tensors in the pipeline.
    unknown = {key for key in keys if key not in OTHER_PAGES and key not in DEPLOYED}
    assert {key for key in unknown if not (ROOT / key).exists()} == set()


def test_every_environment_variable_on_the_page_exists() -> None:
    named = {word for word in CODE if re.fullmatch(r"[A-Z]+(?:_[A-Z]+)+", word)} - NOT_OURS
    assert "MLSERVER_LLM_DATA" in named
    of_mlserver = {f"MLSERVER_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in named - of_mlserver if name not in DEPLOYED + MAKEFILE} == set()


def test_the_page_creates_the_secrets_that_the_manifests_read() -> None:
    examples = yaml.safe_load_all((ROOT / "manifests/secrets.example.yaml").read_text(encoding="utf-8"))
    expected = {each["metadata"]["name"]: set(each["stringData"]) for each in examples}
    made = {
        words[words.index("generic") + 1]: {word.split("=")[1] for word in words if word.startswith("--from-")}
        for words in commands("kubectl")
        if "secret" in words
    }
    assert made == expected


def test_storage_secrets_are_rclone_remotes_of_the_models() -> None:
    remotes = [yaml.safe_load(text) for text in re.findall(r"<<'END'\n(.*?)END", "".join(BASH), re.DOTALL)]
    prefixes = {each["spec"]["storageUri"].split("://")[0] for each in DOCUMENTS if each["kind"] == "Model"}
    assert len(remotes) == 2
    for remote in remotes:
        assert set(remote) == {"type", "name", "parameters"}
        assert {remote["name"]} == prefixes
        # Core 2 reads them into a map of texts.
        assert all(isinstance(value, str) for value in remote["parameters"].values())


def test_the_table_of_steps_matches_the_pipeline() -> None:
    (pipeline,) = [each for each in DOCUMENTS if each["kind"] == "Pipeline"]
    table = re.findall(r"\| step \| reads .*?\n\n", PAGE, re.DOTALL)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.strip().splitlines()[2:]]
    assert [row[0] for row in rows] == [f"`{step['name']}`" for step in pipeline["spec"]["steps"]]
    emitted = {name.strip("`"): set(re.findall(r"`(\w+)`", emits)) for name, _, emits in rows}
    for (name, reads, _), step in zip(rows, pipeline["spec"]["steps"], strict=True):
        wired = [reference.split(".") for reference in step["inputs"] if reference.count(".") == 2]
        wired = [(source, tensor) for source, _, tensor in wired if tensor != "llm_parameters"]
        assert all(tensor in emitted[source] for source, tensor in wired), name
        if "`" in reads and wired:
            assert set(re.findall(r"`(\w+)`", reads.split(";")[0])) == {tensor for _, tensor in wired}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_mlserver(ROOT / "models", tmp_path_factory.mktemp("deploy"))
    yield server
    server.stop()


def test_the_curl_request_is_answered(desk: Server) -> None:
    (words,) = [shlex.split(block) for block in BASH if block.startswith("curl")]
    (url,) = [word for word in words if word.startswith("http://")]
    headers = dict(words[index + 1].split(": ", 1) for index, word in enumerate(words) if word == "-H")
    response = httpx2.post(
        url.replace("http://127.0.0.1:8080", desk.url),
        content=words[words.index("-d") + 1],
        headers=headers,
        timeout=60,
    )
    answer = outputs(response)
    assert answer["role"] == ["assistant"] and "BUG-771" in str(answer["content"][0])


def test_the_python_request_is_answered_over_grpc(desk: Server) -> None:
    code = PYTHON.replace("127.0.0.1:8080", f"127.0.0.1:{desk.grpc_port}")
    printed = subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True, timeout=120)
    assert "role ['assistant']" in printed and "history [" in printed
