"""Classifies database errors. Each driver reports them differently, some in another class."""

from enum import Enum, auto
from typing import Any, cast

from sqlalchemy import ExceptionContext
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mlserver_chat import NotReachable

Failure = DBAPIError | PoolTimeout | OSError
"""Errors of a statement. pg8000 raises socket errors as they are."""


class Fault(Enum):
    """The meaning of an error."""

    STALE = auto()
    """The connection is gone. A new one may work."""
    RACE_LOST = auto()
    """A deadlock or a serialization failure. Another try may succeed."""
    BUSY = auto()
    """A lock timeout."""
    NO_CONNECTION = auto()
    """All connections of the pool are in use."""
    NO_TABLE = auto()
    """A table is missing, for example because the database was recreated."""
    NO_RIGHT = auto()
    """The database user lacks a privilege."""
    BAD_TEXT = auto()
    """The database can't store a value."""
    DISK_FULL = auto()
    """SQLite's disk is full. Reading goes on."""
    DAMAGED = auto()
    """A part of the data can't be read. Other parts can."""
    DOWN = auto()
    """The database can't be reached or used."""
    REFUSED = auto()
    """The database rejected a statement, which is a bug."""


class DamagedData(NotReachable):
    """Data of one conversation can't be read. Others can."""

    def __init__(self) -> None:
        super().__init__("the memory store holds data of this conversation that can't be read")


_RACE_LOST = frozenset(("40001", "40P01", "1205", "1213", "60", "8177", "955"))
"""SQLSTATE (PostgreSQL), number (SQL Server, MySQL, Oracle; 955 is a table that another replica has just made)."""
_BUSY = {
    "sqlite": ("SQLITE_BUSY",),
    "postgresql": ("55P03", "57014"),
    "mysql": ("1205",),
    "mariadb": ("1205",),
    "mssql": ("1222",),
}
"""By dialect, and checked first: 1205 is a lock timeout on MySQL and a deadlock on SQL Server."""
_NO_TABLE = frozenset(("42P01", "42883", "1146", "208", "942"))
"""Tables and functions: SQLSTATE (PostgreSQL), number (MySQL, SQL Server, Oracle)."""
_NO_RIGHT = "42501"
_BAD_TEXT = "22"
"""Class of PostgreSQL's SQLSTATEs, which pg8000 reports as any error of the server."""
_DOWN = ("SQLITE_NOTADB", "SQLITE_CANTOPEN", "3D000")
"""A file that is no database or can't be opened, and a database that doesn't exist. A good one may be put back while
the server runs."""
_HUNG_UP = ("57P0", "08", "25006")
"""SQLSTATEs of a connection that is gone, or is to a server that only reads; a driver may report them as any other
error of the server."""


def fault_of(error: Failure, dialect: str) -> Fault:
    """What `error` means on a database of this dialect."""
    if isinstance(error, PoolTimeout):
        return Fault.NO_CONNECTION
    code = code_of(cause_of(error))
    if isinstance(error, DataError) or (dialect == "postgresql" and code.startswith(_BAD_TEXT)):
        return Fault.BAD_TEXT
    if code.startswith(_BUSY.get(dialect, ())):
        return Fault.BUSY
    if code in _RACE_LOST:
        return Fault.RACE_LOST
    if code in _NO_TABLE or (code == "SQLITE_ERROR" and "no such table" in str(cause_of(error))):
        return Fault.NO_TABLE
    if code == _NO_RIGHT:
        return Fault.NO_RIGHT
    if isinstance(cause_of(error), TimeoutError) or code.startswith(_DOWN):
        return Fault.DOWN
    if dialect == "sqlite":
        return _fault_of_file(error, code)
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return Fault.STALE
    return Fault.DOWN if isinstance(error, OperationalError | InterfaceError) else Fault.REFUSED


def _fault_of_file(error: Failure, code: str) -> Fault:
    """The fault of a SQLite file, which concerns one statement: nothing else in the file is unreachable."""
    if code.startswith("SQLITE_FULL"):
        return Fault.DISK_FULL
    # The driver gives no code for text that isn't UTF-8.
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_IOERR")) or (not code and isinstance(error, OperationalError)):
        return Fault.DAMAGED
    return Fault.DOWN if isinstance(error, OperationalError | InterfaceError) else Fault.REFUSED


def cause_of(error: Failure) -> BaseException | None:
    """The driver's error."""
    return error.orig if isinstance(error, DBAPIError) else error


def code_of(error: BaseException | None) -> str:
    """What the database calls a driver's error: SQLSTATE, number or name; "" when it says none."""
    first: Any = error.args[0] if error is not None and error.args else None
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    # MySQL has one SQLSTATE for many numbers.
    if code is None or isinstance(first, int):
        # pg8000 gives the server's fields, `C` being the SQLSTATE; oracledb an object; others a number.
        code = cast(dict[str, Any], first).get("C") if isinstance(first, dict) else getattr(first, "code", first)
    return str(code) if isinstance(code, int) or (isinstance(code, str) and len(code) < 40) else ""


def recognise_disconnect(context: ExceptionContext) -> None:
    """A server that says why it hangs up (shutdown, an administrator's command) has hung up all the same, and so has a
    socket that fails. For the event `handle_error`."""
    error = context.original_exception
    if isinstance(error, OSError):
        context.is_disconnect = True
        raise OperationalError(None, None, error, hide_parameters=True, connection_invalidated=True)
    if code_of(error).startswith(_HUNG_UP):
        context.is_disconnect = True
