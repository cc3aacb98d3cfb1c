"""From settings to a store."""

from mlserver_chat import MemoryStore, SettingsError, data_folder

from .settings import FileSysSettings, MemorySettings


def open_store(settings: MemorySettings) -> MemoryStore:
    """The store that the settings name, not yet reached.

    Raises:
        SettingsError: a URL, option or folder that can't be used, or a library that isn't installed.
    """
    config = settings.config
    if isinstance(config, FileSysSettings):
        from .filesys import FileSysStore

        return FileSysStore(data_folder() / config.path, config.durability)
    try:
        from .sql import SqlStore
    except ModuleNotFoundError:
        raise SettingsError("'database': 'sql' needs SQLAlchemy; install mlserver-llm[memory]") from None
    return SqlStore(config.url.get_secret_value(), config.connection_options, config.table_prefix, config.table_schema)


async def schema_of(store: MemoryStore) -> tuple[int, int]:
    """Version of the schema of a store from `open_store`, 0 for none, and the version that opening it would make of it;
    files have but one."""
    try:
        from .sql import SqlStore
    except ModuleNotFoundError:
        return 1, 1
    return await store.schema() if isinstance(store, SqlStore) else (1, 1)


def place_of(store: MemoryStore) -> str:
    """Where a store from `open_store` keeps its conversations, without user and password."""
    place: str = getattr(store, "place", "")
    return place
