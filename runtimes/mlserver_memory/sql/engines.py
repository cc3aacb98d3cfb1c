"""Makes a SQLAlchemy engine from the URL and options of the settings."""

import logging
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from mlserver_chat import SettingsError, data_folder

from .dialects import postgres, sqlite
from .faults import recognise_disconnect

logger = logging.getLogger("mlserver.memory")

_CONNECT_TIMEOUT: dict[str, dict[str, Any]] = {
    "pg8000": {"timeout": 10},
    # Afterwards, how long a network may be cut before the connection is given up: milliseconds, seconds.
    "psycopg": {"connect_timeout": 10, "tcp_user_timeout": 30_000},
    "pymysql": {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60},
    "pymssql": {"login_timeout": 10},
    "oracledb": {"tcp_connect_timeout": 10.0},
    "pysqlite": {"timeout": 30},
}
"""Seconds to wait for a connection (for SQLite, for another process's transaction), where the URL says nothing."""


_USUAL = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mssql": "mssql+pymssql",
    "oracle": "oracle+oracledb",
}
"""The driver that an extra of this project brings."""


def resolved(url: str) -> URL:
    """The URL, a relative SQLite file below the data folder.

    Raises:
        SettingsError: it is none, or names a SQLite database in memory.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("'parameters.extra.config.url' is not a SQLAlchemy URL") from None
    if parsed.get_backend_name() != "sqlite":
        if "@" in f"{parsed.host}{parsed.database}":
            # The text before it is part of a password and would be logged as the host.
            raise SettingsError("'parameters.extra.config.url' has an '@' too many; write one in a password as %40")
        return parsed
    if not parsed.database or parsed.database == ":memory:" or "memory" in str(parsed.query.get("mode", "")):
        raise SettingsError("'parameters.extra.config.url' names a SQLite database in memory; expected a file")
    path = data_folder() / parsed.database
    logger.info("memory is stored in %s", path)
    return parsed.set(database=str(path))


def make_engine(url: URL, options: dict[str, Any]) -> Engine:
    """An engine whose pool resets nothing and whose errors hold no values.

    Raises:
        SettingsError: a URL or an option that SQLAlchemy refuses, or a driver that isn't installed.
    """
    if "isolation_level" in options:
        raise SettingsError("'connection_options' has 'isolation_level', which the store chooses itself; leave it out")
    try:
        driver = url.get_dialect()().driver
        connect = _CONNECT_TIMEOUT.get(driver, {}) | dict(options.get("connect_args", {}))
        connect = {key: value for key, value in connect.items() if key not in url.query}
        # Values of a statement are messages and ids: they must not show in errors and logs.
        ours: dict[str, Any] = {"connect_args": connect, "hide_parameters": True}
        # Every transaction here is ended by its own commit or rollback; another rollback would be a round trip.
        ours |= {"pool_use_lifo": True, "pool_reset_on_return": None}
        if url.get_backend_name() == "postgresql":
            ours["isolation_level"] = "AUTOCOMMIT"
        engine = create_engine(url, **(options | ours))
    except ModuleNotFoundError as error:
        usual = _USUAL.get(url.get_backend_name(), url.drivername)
        raise SettingsError(
            f"'parameters.extra.config.url' needs the driver '{error.name}'; install it, or write {usual} "
            "and install mlserver-llm with its extra (docs/memory-operate.md)"
        ) from None
    except NoSuchModuleError:
        raise SettingsError(
            f"'parameters.extra.config.url' begins with '{url.drivername}', which SQLAlchemy doesn't know; "
            "expected e.g. postgresql+psycopg, mysql+pymysql or sqlite"
        ) from None
    except (ArgumentError, TypeError, ValueError):
        raise SettingsError(
            "'parameters.extra.config' has a 'url' or 'connection_options' that SQLAlchemy refuses"
        ) from None
    event.listen(engine, "handle_error", recognise_disconnect)
    if url.get_backend_name() == "sqlite":
        sqlite.prepare(engine, str(url.database))
    if url.get_backend_name() == "postgresql":
        event.listen(engine, "connect", postgres.prepare_connection)
    return engine


def _without_traceback(record: logging.LogRecord) -> bool:
    """SQLAlchemy's pool logs what went wrong while a broken connection was closed, with the values of statements."""
    record.exc_info = None
    return True


logging.getLogger("sqlalchemy.pool.impl.QueuePool").addFilter(_without_traceback)
