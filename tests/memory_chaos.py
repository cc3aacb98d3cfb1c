"""Memory servers killed, databases restarted and requests delivered twice, while conversations go on; then a checker.

`python tests/memory_chaos.py --appends 10000` is the long run over every store; `tests/chaos/` a short one.
"""

import argparse
import asyncio
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from databases import DatabaseServer, execute, mariadb, postgres, postgres_pair, sql_url
from support import Server, start_mlserver

WINDOW = 20
FAILOVER = "failover"
"""Two PostgreSQL servers with synchronous replication, reached by one URL. The primary is killed."""
STORES = ("filesys", "sqlite", "pg8000", "psycopg", "mariadb", FAILOVER)


@dataclass
class Run:
    """One chaos run: two servers over one store, and one client for each conversation."""

    store: str
    appends: int
    conversations: int
    folder: Path
    seed: int = 0
    servers: list[Server | None] = field(default_factory=lambda: [None, None])
    windows: dict[str, list[tuple[int, list[str]]]] = field(default_factory=dict)
    """For each conversation the turns that were answered for, in order, with the window of each answer."""
    kills: int = 0
    done: bool = False
    attempts: int = 0
    pair: tuple[DatabaseServer, DatabaseServer] | None = None
    """Primary and standby."""

    def prepare(self) -> None:
        """Write the model and start both servers."""
        self.random = random.Random(self.seed)
        config: dict[str, object] = {"window_size": WINDOW}
        if self.store == "filesys":
            config["path"] = "files"
        elif self.store == FAILOVER:
            self.pair = postgres_pair()
            hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in self.pair)
            config["url"] = f"postgresql+psycopg://postgres@/postgres?{hosts}&target_session_attrs=read-write"
        else:
            config["url"] = sql_url(self.store, f"chaos_{self.store}_{self.seed}_{int(time.time())}", self.folder)
        extra = {"database": "filesys" if self.store == "filesys" else "sql", "config": config}
        model = {"name": "memory", "implementation": "mlserver_memory.ConversationalMemory"}
        (self.folder / "models" / "memory").mkdir(parents=True)
        (self.folder / "models" / "memory" / "model-settings.json").write_text(
            json.dumps(model | {"parameters": {"extra": extra}}), encoding="utf-8"
        )
        (self.folder / "models" / "settings.json").write_text('{"parallel_workers": 0, "debug": false}', "utf-8")
        self.servers = [self._start(), self._start()]

    def _start(self) -> Server:
        return start_mlserver(self.folder / "models", self.folder)

    async def run(self) -> None:
        """Talk until every conversation has its share of answered appends, while things break."""
        async with httpx2.AsyncClient(timeout=10) as client:
            names = [f"conversation {n} 🙂" for n in range(self.conversations)]
            breaking = asyncio.create_task(self._fail_over() if self.pair is not None else self._break_things())
            try:
                await asyncio.gather(*(self._talk(client, name) for name in names))
            finally:
                self.done = True
                await breaking

    async def _talk(self, client: httpx2.AsyncClient, name: str) -> None:
        answered = self.windows.setdefault(name, [])
        for turn in range(self.appends // self.conversations):
            body = self._body(name, f"{name} turn {turn}")
            headers = {"x-request-id": f"{name.split(' ')[1]}-{turn}"}
            window = None
            while window is None:
                copies = 2 if self.random.random() < 0.2 else 1
                sent = [self._send(client, body, headers) for _ in range(copies)]
                windows = [each for each in await asyncio.gather(*sent) if each is not None]
                window = windows[0] if windows else None
                assert all(each == window for each in windows), "a replay was answered otherwise"
            answered.append((turn, window))

    async def _send(
        self, client: httpx2.AsyncClient, body: dict[str, object], headers: dict[str, str]
    ) -> list[str] | None:
        """The window, or None when there was no answer or 503."""
        server = self.random.choice(self.servers)
        self.attempts += 1
        if server is None:
            await asyncio.sleep(0.05)
            return None
        try:
            response = await client.post(f"{server.url}/v2/models/memory/infer", json=body, headers=headers)
        except httpx2.HTTPError:
            await asyncio.sleep(0.05)
            return None
        if response.status_code == 503:
            await asyncio.sleep(0.1)
            return None
        assert response.status_code == 200, response.text
        (history,) = [each["data"] for each in response.json()["outputs"] if each["name"] == "history"]
        return [json.loads(message)["content"][0]["value"] for message in history]

    def _body(self, name: str, content: str | None) -> dict[str, object]:
        tensors = {"memory_id": name} | ({} if content is None else {"role": "user", "content": content})
        return {
            "inputs": [
                {"name": key, "shape": [1], "datatype": "BYTES", "data": [value]} for key, value in tensors.items()
            ]
        }

    async def _break_things(self) -> None:
        breakages: list[Callable[[], None]] = [self._hang_up, self._restart_database, self._hang_up]
        while not self.done:
            await asyncio.sleep(self.random.uniform(0.3, 1.0))
            if self.store in ("pg8000", "psycopg", "mariadb"):
                breakages.append(breakages.pop(0))
                await asyncio.to_thread(breakages[-1])
            victim = self.random.randrange(2)
            server, self.servers[victim] = self.servers[victim], None
            if server is not None:
                await asyncio.to_thread(server.stop, True)
                self.kills += 1
            self.servers[victim] = await asyncio.to_thread(self._start)

    async def _fail_over(self) -> None:
        """Kill the primary when half of the appends are answered, and promote the standby a second later."""
        assert self.pair is not None
        primary, standby = self.pair
        while sum(map(len, self.windows.values())) < self.appends // 2:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(primary.kill)
        self.kills += 1
        await asyncio.sleep(1)
        await asyncio.to_thread(execute, "postgres", standby.port, "SELECT pg_promote()")

    def _hang_up(self) -> None:
        if self.store != "mariadb":
            kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'chaos%'"
            execute("postgres", postgres().port, kill)

    def _restart_database(self) -> None:
        server = mariadb() if self.store == "mariadb" else postgres()
        server.stop()
        server.start()

    def check(self) -> int:
        """Every answered append is there exactly once and in order, and no window was malformed; how many there are."""
        (server,) = [each for each in self.servers[:1] if each is not None]
        count = 0
        for name, answered in self.windows.items():
            history = self._history(server, name)
            expected = [f"{name} turn {turn}" for turn, _ in answered]
            assert history == expected, f"{name}: {len(history)} messages stored, {len(expected)} answered for"
            for turn, window in answered:
                assert window == history[max(turn + 1 - WINDOW, 0) : turn + 1], f"{name}: a malformed window"
            count += len(answered)
        return count

    def _history(self, server: Server, name: str) -> list[str]:
        found: list[str] = []
        after = 0
        while True:
            body = self._body(name, None) | {"parameters": {"operation": "export", "after": after}}
            response = httpx2.post(f"{server.url}/v2/models/memory/infer", json=body, timeout=60)
            assert response.status_code == 200, response.text
            (rows,) = [each["data"] for each in response.json()["outputs"] if each["name"] == "messages"]
            if not rows:
                return found
            messages = [json.loads(row) for row in rows]
            found += [message["content"][0]["value"] for message in messages]
            after = messages[-1]["sequence"]

    def stop(self) -> None:
        """Stop the servers."""
        for server in self.servers:
            if server is not None:
                server.stop(kill=True)
        for database in self.pair or ():
            database.remove()


def chaos(store: str, appends: int, conversations: int, folder: Path, seed: int = 0) -> Run:
    """Prepare, run, check, stop."""
    run = Run(store, appends, conversations, folder, seed)
    try:
        run.prepare()
        asyncio.run(run.run())
        assert run.check() >= appends // conversations * conversations
    finally:
        run.stop()
    return run


def main() -> None:
    """The long run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--appends", type=int, default=10_000)
    parser.add_argument("--conversations", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("stores", nargs="*", default=STORES)
    arguments = parser.parse_args()
    for store in arguments.stores:
        folder = Path(tempfile.mkdtemp(prefix="mlserver-llm-chaos-"))
        began = time.monotonic()
        conversations = 8 if store == FAILOVER else arguments.conversations
        run = chaos(store, arguments.appends, conversations, folder, arguments.seed)
        print(
            f"{store}: {arguments.appends} appends answered for, 0 lost, 0 doubled, all in order; {run.kills} servers "
            f"killed, {run.attempts} requests sent, {time.monotonic() - began:.0f} s, seed {arguments.seed}"
        )
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
