"""Reading files that a user or a stranger named: regular ones, of a bounded size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

BLOCK = 2**16  # bytes read at once, of a smaller file
TEXT_BYTES = 2**24  # of a file that people write: settings, prompts, names


def read_regular(path: str | Path, most: int = TEXT_BYTES) -> bytes:
    """The bytes of a regular file. Anything else is refused without waiting: a named pipe, a socket, a device.

    Args:
        path: the file.
        most: the most bytes that it may have.

    Raises:
        OSError: if it cannot be read, is no regular file (EINVAL), or has more bytes (EFBIG).
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"a file of {status.st_size:,} bytes", str(path))
        return _read(descriptor, status.st_size, most)
    finally:
        os.close(descriptor)


def _read(descriptor: int, size: int, most: int) -> bytes:
    """All bytes of a file that has `size` of them, unless it is written to, at most `most`."""
    parts, left = [], most
    while left and (part := os.read(descriptor, min(left, max(size, BLOCK) + 1))):
        parts.append(part)
        left -= len(part)
        if len(parts) == 1 and len(part) == size < BLOCK:  # the usual case: read whole at once
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_text(path: str | Path, most: int = TEXT_BYTES) -> str:
    """The same as text in UTF-8, with or without a byte order mark, in universal newlines.

    Raises:
        OSError: see `read_regular`.
        UnicodeDecodeError: if it is not UTF-8.
    """
    text = read_regular(path, most).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")
