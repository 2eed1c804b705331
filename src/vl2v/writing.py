"""Writing a file so that a reader sees the old one or the new one, never half."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vl2v.faults import naming


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to in the block; the file then takes its place, or is removed if the block raises.

    What stands at that path before, such as a link to another file, is removed first.

    Raises:
        OSError: with the file's name, e.g. where the disk is full.
    """
    fresh = path.with_name(f"{path.name}.new")
    with naming(path):
        fresh.unlink(missing_ok=True)
        try:
            yield fresh
            fresh.replace(path)
        except BaseException:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise


def reserve(file: Path, size: int) -> None:
    """Make a file at least so long and take the room on the disk.

    What is written through a memory map later cannot fail then: without room the system would end the process.

    Args:
        file: made if missing.
        size: in bytes.

    Raises:
        OSError: with the file's name, if the disk is full.
    """
    with naming(file), file.open("ab") as handle:
        if hasattr(os, "posix_fallocate") and size:
            try:
                os.posix_fallocate(handle.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot
                    raise
        if handle.tell() < size:
            handle.truncate(size)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 over what stands there, at once."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
