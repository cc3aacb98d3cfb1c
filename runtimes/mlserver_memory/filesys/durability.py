"""When what was written reaches the disk itself."""

import atexit
import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Literal

from .files import sync_folder
from .records import RecordFile

_BATCH_SECONDS = 0.1


class Durability:
    """Syncs files by the policy of the settings.

    `commit` syncs before the append is answered; `batch` within a tenth of a second, and when the process ends, whether
    or not MLServer unloads the model; `none` leaves it to the operating system.
    """

    def __init__(self, policy: Literal["commit", "batch", "none"]):
        self._policy = policy
        self._written: set[Path] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        if policy == "batch":
            self._thread = threading.Thread(target=self._run, name="memory-sync", daemon=True)
            self._thread.start()
            atexit.register(self.flush)

    def written(self, path: Path, records: RecordFile, is_new: bool) -> None:
        """A record was appended to `path`; `is_new` when the file was made for it."""
        if self._policy == "commit":
            records.sync()
            if is_new:
                sync_folder(path.parent)
        elif self._policy == "batch":
            with self._lock:
                self._written.add(path)
            self._wake.set()

    def flush(self) -> None:
        """Sync what was written since the last time."""
        with self._lock:
            written, self._written = self._written, set()
        for path in written:
            # What was removed meanwhile needs no sync, and a disk that fails is noticed by the next append.
            with contextlib.suppress(OSError):
                _sync(path)
                sync_folder(path.parent)

    def close(self) -> None:
        """Flush, and stop."""
        if self._policy == "batch":
            self._closed = True
            self._wake.set()
            self._thread.join()
            atexit.unregister(self.flush)
            self.flush()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            if not self._closed:
                time.sleep(_BATCH_SECONDS)
            self.flush()


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(file)
    finally:
        os.close(file)
