"""One process at a time, among all that use the same files of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock file until the block ends, or this process does, however it ends; wait for whoever holds it.

    Args:
        file: made if missing, in a folder that exists; it may stay, empty.
    """
    with FileLock(file):
        yield


@contextmanager
def held_if_free(file: Path) -> Iterator[bool]:
    """The same without waiting; the value tells whether the lock is ours."""
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
