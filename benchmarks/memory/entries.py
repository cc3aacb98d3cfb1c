"""The lines of the tables, and what is claimed of them."""

from dataclasses import dataclass

LENGTHS = (50, 1_000, 100_000)
SHORT = LENGTHS[:2]
"""For peers that read or rewrite the whole conversation each time, and for the rest of the peers beside them."""

SQLITE, FILE, FOLDER = "sqlite:///{folder}/x.db", "{folder}/x.db", "{folder}"
PSYCOPG = "postgresql+psycopg://postgres@127.0.0.1:{postgres}/{database}"
PG8000 = "postgresql+pg8000://postgres@127.0.0.1:{postgres}/{database}"
DSN = "postgresql://postgres@127.0.0.1:{postgres}/{database}"
ASYNCPG = "postgresql+asyncpg://postgres@127.0.0.1:{postgres}/{database}"
PYMYSQL = "mysql+pymysql://root@127.0.0.1:{mariadb}/{database}"


@dataclass(frozen=True)
class Entry:
    """A subject of `subjects.py`, or of `peers.py` when it has an environment."""

    name: str
    subject: str
    where: str
    """`{folder}`, `{database}` and the servers' ports are filled in."""
    environment: str | None = None
    lengths: tuple[int, ...] = LENGTHS

    @property
    def module(self) -> str:
        return "subjects" if self.environment is None else "peers"


TURNS = (
    Entry("files: mlserver_memory", "OursFiles", FOLDER),
    Entry("files: LangChain FileChatMessageHistory", "LangChainFile", FOLDER, "langchain", SHORT),
    Entry("SQLite: by hand", "FloorSqlite", FILE),
    Entry("SQLite: mlserver_memory", "OursSql", SQLITE),
    Entry("SQLite: LangChain SQLChatMessageHistory", "LangChainSql", SQLITE, "langchain", SHORT),
    Entry("SQLite: LangGraph SqliteSaver", "LangGraphSqlite", FILE, "langgraph", SHORT),
    Entry("SQLite: OpenAI Agents SQLAlchemySession", "Agents", "sqlite+aiosqlite:///{folder}/x.db", "agents", SHORT),
    Entry("PostgreSQL: by hand (psycopg)", "FloorPsycopg", DSN),
    Entry("PostgreSQL: mlserver_memory (psycopg)", "OursSql", PSYCOPG),
    Entry("PostgreSQL: by hand (pg8000)", "FloorPg8000", PG8000),
    Entry("PostgreSQL: mlserver_memory (pg8000)", "OursSql", PG8000),
    Entry("PostgreSQL: LangChain PostgresChatMessageHistory", "LangChainPostgres", DSN, "langchain", SHORT),
    Entry("PostgreSQL: LangGraph PostgresSaver", "LangGraphPostgres", DSN, "langgraph", SHORT),
    Entry("PostgreSQL: OpenAI Agents SQLAlchemySession", "Agents", ASYNCPG, "agents", SHORT),
    Entry("MariaDB: by hand (pymysql)", "FloorPymysql", PYMYSQL),
    Entry("MariaDB: mlserver_memory (pymysql)", "OursSql", PYMYSQL),
)
STORES = {
    "files": FOLDER,
    "SQLite": SQLITE,
    "PostgreSQL (psycopg)": PSYCOPG,
    "PostgreSQL (pg8000)": PG8000,
    "MariaDB (pymysql)": PYMYSQL,
}
"""What many callers at once are measured on."""
MODELS = {"null": "null model", "memory-10": "memory, window of 10", "memory-50": "memory, window of 50"}
"""What is asked over HTTP."""
