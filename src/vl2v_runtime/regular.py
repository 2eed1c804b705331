"""Reading files that a user or a stranger named: regular ones, of a bounded size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

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
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most + 1)[:most]
    finally:
        os.close(descriptor)


def read_text(path: str | Path, most: int = TEXT_BYTES) -> str:
    """The same as text in UTF-8, with or without a byte order mark, in universal newlines.

    Raises:
        OSError: see `read_regular`.
        UnicodeDecodeError: if it is not UTF-8.
    """
    text = read_regular(path, most).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")
