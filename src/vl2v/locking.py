"""File locks between processes on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vl2v.writing import check_alone

SOON = 5.0  # seconds


@contextmanager
def file_lock(file: Path, busy: Callable[[], None] | None = None) -> Iterator[None]:
    """Lock a file until the block ends; wait while another process has locked it.

    The operating system releases the lock if this process is killed.

    Args:
        file: path of the lock file. It is created if missing, and may remain as an empty file. Its folder must exist.
        busy: called once if the lock is not acquired within `SOON` seconds.

    Raises:
        AccessError: if the file is a link, since locking empties the file that it points to.
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
def try_file_lock(file: Path) -> Iterator[bool]:
    """Try to lock a file without waiting; the value is whether the lock was acquired.

    Args:
        file: as for `file_lock`.

    Raises:
        AccessError: if the file is a link.
    """
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
