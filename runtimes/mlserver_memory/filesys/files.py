"""Opening a conversation's file under its lock, and making what was written last."""

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from .records import RecordFile, is_file_at

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

Report = Callable[[Path, str], None]
"""Called with a file and what was found wrong in it."""


@contextmanager
def reading(path: Path, report: Report) -> Generator[RecordFile | None]:
    """The records of `path` under a shared lock; None when there is no such file."""
    try:
        file = _locked(path, _READ, fcntl.LOCK_SH)
    except FileNotFoundError:
        yield None
        return
    try:
        yield _records(file, path, report)
    finally:
        os.close(file)


@contextmanager
def writing(path: Path, report: Report) -> Generator[RecordFile]:
    """The records of `path` under an exclusive lock, with a repaired end. Creates the file and its folder if needed."""
    try:
        file = _locked(path, _WRITE, fcntl.LOCK_EX)
    except FileNotFoundError:
        make_folder(path.parent)
        file = _locked(path, _WRITE, fcntl.LOCK_EX)
    try:
        records = _records(file, path, report)
        records.repair_end()
        yield records
    finally:
        os.close(file)


def _records(file: int, path: Path, report: Report) -> RecordFile:
    records = RecordFile(file, lambda offset: report(path, f"a damaged record at byte {offset}"))
    if records.torn:
        report(path, f"{records.torn} bytes of a write that was cut short")
    if records.unended:
        report(path, "a damaged end of the last record")
    return records


def _locked(path: Path, flags: int, operation: int) -> int:
    """The open file, locked. `flock` belongs to this opening: it also excludes another thread that opened the file."""
    while True:
        file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(file, operation)
            if is_file_at(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        # Rewritten or removed while we waited for the lock.
        os.close(file)


def make_folder(path: Path) -> None:
    """Make a folder and what is missing above it, and make their names last."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Make names in a folder last."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace(path: Path, data: bytes) -> None:
    """Write `data` in place of the file, all or nothing; the caller holds the old file's lock."""
    new = path.with_suffix(".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(file)
    except OSError:
        # A full disk needs its space back.
        new.unlink(missing_ok=True)
        raise
    os.replace(new, path)
    _remove_old_index(path)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove the file; the caller holds its lock."""
    _remove_old_index(path)
    path.unlink()
    sync_folder(path.parent)


def _remove_old_index(path: Path) -> None:
    """Remove the index that earlier releases kept beside a conversation's file."""
    path.with_suffix(".keys").unlink(missing_ok=True)
