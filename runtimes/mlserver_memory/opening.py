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
