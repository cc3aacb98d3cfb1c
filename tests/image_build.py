"""Runs the steps of a Dockerfile without a container engine, with the image's folders below a temporary one."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dockerfile_parse import DockerfileParser

from support import ROOT

RECIPE = DockerfileParser(path=str(ROOT), fileobj=None, cache_content=True)
FOLDERS = ("/usr/local", "/opt", "/src", "/var/lib", "/tmp", "/mnt")
"""Folders of an image that its steps may use. Each one is mapped into the temporary folder."""

INSIDE = re.compile(rf"(?<![\w.$}}/-])(?:{'|'.join(FOLDERS)})(?=[/\s\"':]|$)")
STRAY = re.compile(r"(?<![\w.$}/:*-])/\w")


def normal(name: str) -> str:
    """Return the normalised name of a distribution."""
    return re.sub(r"[-_.]+", "-", name).lower()


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their values, in order."""
    return [(step["instruction"], step["value"]) for step in RECIPE.structure if step["instruction"] != "COMMENT"]


def value_of(instruction: str) -> str:
    """Return the value of the last instruction of this kind."""
    return [value for name, value in instructions() if name == instruction][-1]


def server_command() -> list[str]:
    """Return the command that the image starts."""
    return json.loads(value_of("CMD"))


def health_command() -> list[str]:
    """Return the command that checks the health of the container."""
    return json.loads(value_of("HEALTHCHECK").split(" CMD ", 1)[1])


@dataclass
class Image:
    """An image in a folder, where `/opt` is `<root>/opt`."""

    root: Path
    arguments: dict[str, str]
    output: str = ""

    def path(self, inside: str) -> Path:
        """Return the path on this machine for a path of the image."""
        return Path(self.mapped(inside))

    def mapped(self, text: str) -> str:
        """Replace every path of the image in a text. Fails for a path that would reach files of this machine."""
        text = INSIDE.sub(lambda found: f"{self.root}{found[0]}", text)
        stray = STRAY.search(text.replace(str(self.root), "ROOT"))
        assert not stray, f"the step names a path outside of {FOLDERS}: {text}"
        return text

    def build(self) -> None:
        """Run all steps of the Dockerfile in order."""
        self._base_image()
        folder = self.root
        for instruction, value in instructions():
            if instruction == "ARG":
                name, _, default = value.partition("=")
                self.arguments.setdefault(name, default)
            elif instruction == "WORKDIR":
                folder = self.path(value)
                folder.mkdir(parents=True, exist_ok=True)
            elif instruction == "COPY":
                self._copy(value, folder)
            elif instruction == "RUN":
                self._run(value, folder)

    def environment(self) -> dict[str, str]:
        """Return the environment of a process in the image, without the variables of this machine."""
        values = {name: self.mapped(value) for name, value in RECIPE.envs.items()}
        return values | {"PATH": f"{values['PATH'].rstrip(':')}:{self.root}/usr/local/bin:/usr/bin:/bin"}

    def packages(self) -> dict[str, str]:
        """Return the versions of the distributions in the image, by normalised name."""
        code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        python = self.path("/opt/venv/bin/python")
        found: dict[str, str] = json.loads(subprocess.check_output([python, "-I", "-c", code], text=True))
        return {normal(name): version for name, version in found.items()}

    def _base_image(self) -> None:
        """Create a Python with pip at `/usr/local/bin`, and a `useradd` that doesn't change this machine."""
        subprocess.run([sys.executable, "-m", "venv", self.path("/usr/local")], check=True)
        stand_in = self.root / "stand-ins" / "useradd"
        stand_in.parent.mkdir()
        stand_in.write_text(f'#!/bin/sh\necho "$@" >> {self.root}/users\n', encoding="utf-8")
        stand_in.chmod(0o755)

    def _copy(self, value: str, folder: Path) -> None:
        *sources, target = shlex.split(value)
        if sources[0].startswith("--from="):
            # Both stages share one root here, because a virtual environment can't be moved.
            assert sources[1:] == [target]
            return
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                )
            else:
                shutil.copy(ROOT / source, folder / target)

    def _run(self, command: str, folder: Path) -> None:
        path = f"{self.root}/stand-ins:{self.root}/usr/local/bin:/usr/bin:/bin"
        # The address and certificates of the package index come from this machine.
        result = subprocess.run(
            ["/bin/sh", "-c", self.mapped(command)],
            cwd=folder,
            env=os.environ | self.arguments | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output += result.stdout
        assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}"
