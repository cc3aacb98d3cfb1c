"""A disk that fills up: a tmpfs of 4 MB with 0 to 8 free pages."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash_checker import STORES, check_exactly_once, try_to_say
from mlserver_memory.conformance.tools import texts

PAGE = 4096
APPENDS = 128


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounting.returncode and os.environ.get("REQUIRE_TMPFS"):
        pytest.fail(f"a tmpfs can't be mounted: {mounting.stderr.decode()}")
    if mounting.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, free_pages: int) -> Path:
    """Fill the disk but for some pages."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError:
            pass
        file.truncate((file.tell() // PAGE) * PAGE - free_pages * PAGE)
    return filler


@pytest.mark.parametrize("free_pages", range(9))
@pytest.mark.parametrize("kind", STORES)
async def test_a_full_disk_loses_and_doubles_nothing(disk: Path, kind: str, free_pages: int) -> None:
    store = STORES[kind](disk)
    acknowledged = [number for number in range(40) if await try_to_say(store, "a", number)]
    assert len(acknowledged) == 40
    filler = fill(disk, free_pages)
    for number in range(40, APPENDS):
        if await try_to_say(store, "a", number):
            acknowledged.append(number)
        # Reads go on, whatever became of the append.
        assert texts(await store.window("a", 1)) != []
    filler.unlink()
    await check_exactly_once(store, "a", acknowledged, APPENDS)
    await store.aclose()
    again = STORES[kind](disk)
    await check_exactly_once(again, "a", acknowledged, APPENDS)
    await again.aclose()


@pytest.mark.parametrize("kind", STORES)
async def test_a_full_disk_stops_appends_and_no_reads(disk: Path, kind: str) -> None:
    store = STORES[kind](disk)
    assert await try_to_say(store, "a", 0)
    filler = fill(disk, 0)
    refused = 0
    for number in range(1, 200):
        refused += not await try_to_say(store, f"new-{number}", number)
        assert texts(await store.window("a", 5)) == ["m0"]
    assert refused > 100
    filler.unlink()
    assert await try_to_say(store, "a", 1)
    await store.aclose()
