"""Read regular files of a limited size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

BLOCK = 2**16  # minimum size of a read in bytes
TEXT_BYTES = 2**24  # maximum size of files that people write: settings, prompts, names


def read_regular(path: str | Path, most: int = TEXT_BYTES) -> bytes:
    """Read a regular file. Named pipes, sockets and devices are rejected without waiting.

    Args:
        most: maximum size in bytes.

    Raises:
        OSError: if the file cannot be read, is not regular (EINVAL), or is larger (EFBIG).
    """
    return read_with_status(path, most)[0]


def read_with_status(path: str | Path, most: int) -> tuple[bytes, os.stat_result]:
    """Read a file as `read_regular` does, and return its status before reading as well."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"a file of {status.st_size:,} bytes", str(path))
        return _read(descriptor, status.st_size, most), status
    finally:
        os.close(descriptor)


def _read(descriptor: int, size: int, most: int) -> bytes:
    """Read at most `most` bytes of a file of `size` bytes, which may grow meanwhile."""
    parts, remaining = [], most
    while remaining and (part := os.read(descriptor, min(remaining, max(size, BLOCK) + 1))):
        parts.append(part)
        remaining -= len(part)
        if len(parts) == 1 and len(part) == size < BLOCK:  # the usual case: one read suffices
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_text(path: str | Path, most: int = TEXT_BYTES) -> str:
    """Read a regular file of UTF-8 text, with or without a byte order mark, with universal newlines.

    Raises:
        OSError: see `read_regular`.
        UnicodeDecodeError: if it is not UTF-8.
    """
    text = read_regular(path, most).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")
