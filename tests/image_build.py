"""Runs a Dockerfile's steps on this machine: no engine, the image's folders below a temporary one."""

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
"""Folders of an image that its steps may name; each is below the temporary one."""

INSIDE = re.compile(rf"(?<![\w.$}}/-])(?:{'|'.join(FOLDERS)})(?=[/\s\"':]|$)")
STRAY = re.compile(r"(?<![\w.$}/:*-])/\w")


def normal(name: str) -> str:
    """A distribution's name in the one form that compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their values, in order."""
    return [(step["instruction"], step["value"]) for step in RECIPE.structure if step["instruction"] != "COMMENT"]


def value_of(instruction: str) -> str:
    """The value of the last such instruction."""
    return [value for name, value in instructions() if name == instruction][-1]


def server_command() -> list[str]:
    """What the image starts."""
    return json.loads(value_of("CMD"))


def health_command() -> list[str]:
    """What tells whether the container is healthy."""
    return json.loads(value_of("HEALTHCHECK").split(" CMD ", 1)[1])


@dataclass
class Image:
    """The image in a folder: `/opt` of the image is `<root>/opt` here."""

    root: Path
    arguments: dict[str, str]
    output: str = ""

    def path(self, inside: str) -> Path:
        """Where a path of the image is on this machine."""
        return Path(self.mapped(inside))

    def mapped(self, text: str) -> str:
        """Text with every path of the image replaced; a path that would reach this machine's own files is an error."""
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
        """What a process of the image sees: nothing of this machine's environment."""
        values = {name: self.mapped(value) for name, value in RECIPE.envs.items()}
        return values | {"PATH": f"{values['PATH'].rstrip(':')}:{self.root}/usr/local/bin:/usr/bin:/bin"}

    def packages(self) -> dict[str, str]:
        """Distributions in the image by their normal names, with their versions."""
        code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        python = self.path("/opt/venv/bin/python")
        found: dict[str, str] = json.loads(subprocess.check_output([python, "-I", "-c", code], text=True))
        return {normal(name): version for name, version in found.items()}

    def _base_image(self) -> None:
        """A Python with pip at `/usr/local/bin`, and no `useradd` that would change this machine."""
        subprocess.run([sys.executable, "-m", "venv", self.path("/usr/local")], check=True)
        stand_in = self.root / "stand-ins" / "useradd"
        stand_in.parent.mkdir()
        stand_in.write_text(f'#!/bin/sh\necho "$@" >> {self.root}/users\n', encoding="utf-8")
        stand_in.chmod(0o755)

    def _copy(self, value: str, folder: Path) -> None:
        *sources, target = shlex.split(value)
        if sources[0].startswith("--from="):
            # Both stages have one root here, and an environment can't be moved anyway.
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
        # The index's address and certificates are the builder's affair: they come from here.
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
