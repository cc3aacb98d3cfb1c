"""Settings of the memory runtime: every key that the LLM Module documents, and ours."""

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from mlserver_chat import Secret, Settings
from mlserver_chat.llm.prompts import PromptUtils
from mlserver_chat.messages.codec import CHAT_TENSORS
from mlserver_chat.settings import Options

MAX_WINDOW = 10_000
"""Largest window; more is an export."""
OPERATIONS = ("append", "window", "delete", "export", "stats")
"""What a request may ask for by the parameter `operation`."""

_REQUIRED_TENSORS = ("role", "content")


class WindowSettings(Settings):
    """What both kinds of store share."""

    env_prefix = "MLSERVER_MODEL_MEMORY_"

    model_type: Literal["chat.completions"] = "chat.completions"
    """Kind of conversation; there is one."""
    window_size: int = Field(default=10, ge=1, le=MAX_WINDOW)
    """Messages to return, including the system message. The request parameter of the same name wins over it."""
    tensor_names: list[str] = ["role", "content", "type"]
    """Tensors stored for each message: of `role`, `content`, `type`, `tool_calls`, `tool_call_id`."""
    output_tensors: list[str] = []
    """Tensors of the message just stored to give back besides `history`; names from `tensor_names`."""
    roles: list[str] = []
    """Roles that requests may append, e.g. `["user"]` for the step that faces callers. Default: any."""
    types: list[str] = []
    """Types of content parts that requests may append, e.g. `["text"]` where the model reads nothing else. Default:
    any."""
    max_message_chars: int | None = Field(default=None, ge=1)
    """Longest message that is stored, in characters of all its parts. Default: no limit."""
    pin_system: bool = True
    """Keep the newest system message in the window when the window slides past it."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens that the window may have; older messages are left out. Needs `tokenizer`."""
    tokenizer: str | None = None
    """Counts `max_tokens`: a `tokenizer.json`, or the folder that holds it, relative to `model-settings.json`."""
    namespace: str = ""
    """Conversations of one namespace are never seen from another."""
    namespace_header: str | None = Field(default=None, pattern=r"^x-[a-z0-9-]+$")
    """Name of the `x-*` request header that gives the namespace, e.g. `x-tenant`; a request without it is refused."""
    ttl: float | None = Field(default=None, gt=0)
    """Seconds after which a message is removed."""
    max_messages: int | None = Field(default=None, ge=1)
    """Messages to keep of each conversation; the newest system message stays besides."""
    prune_interval: float = Field(default=600.0, gt=0)
    """Seconds between two removals of what `ttl` and `max_messages` doom."""
    operations: list[Literal["append", "window", "delete", "export", "stats"]] = list(OPERATIONS)
    """What requests may ask for by the parameter `operation`."""

    @field_validator("tensor_names")
    @classmethod
    def _known_tensors(cls, names: list[str]) -> list[str]:
        unknown = [name for name in names if name not in CHAT_TENSORS]
        missing = [name for name in _REQUIRED_TENSORS if name not in names]
        if unknown:
            raise ValueError(f"'{unknown[0]}' is not a tensor of a message; expected {', '.join(CHAT_TENSORS)}")
        if missing:
            raise ValueError(f"'{missing[0]}' is missing; a message can't do without it")
        return names

    @model_validator(mode="after")
    def _fits_together(self) -> "WindowSettings":
        for name in self.output_tensors:
            if name not in self.tensor_names:
                raise ValueError(f"'output_tensors' names '{name}', which 'tensor_names' lacks")
        if (self.max_tokens is None) != (self.tokenizer is None):
            raise ValueError("'max_tokens' and 'tokenizer' go together; expected both or none")
        if self.namespace and self.namespace_header:
            raise ValueError("'namespace' and 'namespace_header' exclude one another")
        return self


class FileSysSettings(WindowSettings):
    """Store in files, one a conversation."""

    path: str = "data"
    """Folder of the store, relative to `MLSERVER_LLM_DATA`, else to the working directory."""
    durability: Literal["commit", "batch", "none"] = "commit"
    """When a message reaches the disk itself: before it is answered for; within a tenth of a second; or when the
    operating system likes. A killed server loses nothing in any of them, a power failure does in the latter two."""


class SqlSettings(WindowSettings):
    """Store in any database that SQLAlchemy knows: SQLite, PostgreSQL, MySQL or MariaDB, SQL Server, Oracle."""

    url: Secret
    """SQLAlchemy URL, e.g. `postgresql+pg8000://user:password@host:5432/db` or `sqlite:///support.db` (relative to
    `MLSERVER_LLM_DATA`, else to the working directory). It holds a password: refer to it by `env:NAME` or
    `file:/path`."""
    connection_options: Options = {}
    """Options of SQLAlchemy's `create_engine`, e.g. `{"pool_size": 20}`; the store itself chooses `isolation_level`
    (refused here), `hide_parameters`, `pool_use_lifo` and `pool_reset_on_return`."""
    table_prefix: str = "memory_"
    """What the names of the tables begin with."""
    table_schema: str | None = None
    """Schema of the tables; default: the connection's own."""


def _class_name(config: Any) -> str:
    """The union's member, by the `database` that stands beside `config`."""
    if not isinstance(config, dict):
        return type(config).__name__
    return "SqlSettings" if cast(dict[str, Any], config).get("database") == "sql" else "FileSysSettings"


def _without_database(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    return {key: value for key, value in cast(dict[str, Any], config).items() if key != "database"}


_ForFiles = Annotated[FileSysSettings, BeforeValidator(_without_database), Tag("FileSysSettings")]
_ForSql = Annotated[SqlSettings, BeforeValidator(_without_database), Tag("SqlSettings")]


class MemorySettings(Settings):
    """Settings of `mlserver_memory.ConversationalMemory`."""

    env_prefix = "MLSERVER_MODEL_MEMORY_"

    database: Literal["filesys", "sql"]
    """Kind of store: `filesys` for one machine, `sql` for more."""
    config: Annotated[_ForFiles | _ForSql, Discriminator(_class_name)] = Field(
        default=cast(Any, None), validate_default=True
    )
    """The store and the window."""
    prompt_utils: PromptUtils | None = None
    """Accepted, as in the LLM Module; memory renders no prompt."""

    @field_validator("config", mode="before")
    @classmethod
    def _name_the_database(cls, config: Any, info: ValidationInfo) -> Any:
        if config is None:
            config = {}
        if isinstance(config, dict):
            return cast(dict[str, Any], config) | {"database": info.data.get("database", "filesys")}
        return config
