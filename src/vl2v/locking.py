"""File locks between processes on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vl2v.writing import check_alone

SOON = 5.0


@contextmanager
def held(file: Path, busy: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file until the block ends, or this process does, however it ends; wait for whoever holds it.

    Args:
        file: made if missing, in a folder that exists; it may stay, empty.
        busy: called once, where the lock is not free within `SOON` seconds.

    Raises:
        AccessError: if the file is a link, since locking empties it.
    """
    check_alone(file)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=-1 if busy is None else SOON)
    except Timeout:
        if busy is not None:
            busy()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held_if_free(file: Path) -> Iterator[bool]:
    """The same without waiting; the value tells whether the lock is ours."""
    check_alone(file)
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
