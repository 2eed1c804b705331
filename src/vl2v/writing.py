"""Atomic writes that links cannot redirect out of a folder.

A run folder may come from a stranger and contain malicious links. `atomic_write` replaces a link and leaves its target
unchanged. `in_place` and `check_alone` reject links. `check_folder` rejects subfolders that are links to the outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, BinaryIO

from vl2v.errors import AccessError
from vl2v.faults import naming


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which replaces `path` at the end of the block, or is removed if the block raises.

    A file or a link at the temporary path is removed first.

    Raises:
        OSError: with the name of the file, e.g. if the disk is full.
    """
    fresh = path.with_name(f"{path.name}.new")
    with naming(path):
        fresh.unlink(missing_ok=True)
        try:
            yield fresh
            fresh.replace(path)
        except BaseException as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename == str(fresh):
                error.filename = str(path)  # the name that the user knows
            raise


def ensure_writable(file: Path) -> None:
    """Check that a file can be written, before money or time is spent on its content. Nothing is left on the disk.

    Args:
        file: its folders may be missing; they are made by whoever writes the file.

    Raises:
        OSError: with the name of the file.
    """
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    if file.exists() and not os.access(file, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    try:
        NamedTemporaryFile(dir=folder).close()
    except OSError as error:
        error.filename = str(file)
        raise


@contextmanager
def atomic_shared_write(folder: Path, target: Callable[[], Path]) -> Iterator[IO[bytes]]:
    """Yield a new file in a folder, which replaces `target()` at the end; several processes may write the same target.

    `target` is called at the end, so the path may depend on what was written. If the block fails, the file is removed.
    """
    file = NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 - closed before it is moved
    try:
        with file:
            yield file
        Path(file.name).replace(target())
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


WRITTEN = (
    "student",
    "export",
    "report",
    "work",
    "jobs",
    "locks",
    "running",
    "vectors",
    "hub",
)  # folders that vl2v writes
FOREIGN = ("tensorboard", "wandb", "mlruns")  # folders that trackers write, which follow links
# W&B links the log of its service from each of its run folders, whose names are new every time.
EXEMPT = "wandb/*run-*/logs/debug-core.log"


def check_folder(folder: Path) -> None:
    """Check that writing into the folder of a run, a student or a benchmark cannot affect files outside.

    Links to outside folders are rejected in the folders that vl2v writes. In those of trackers, all links to the
    outside are rejected, at any depth, except one that W&B makes itself.

    Raises:
        AccessError: if there is such a link.
    """
    root = folder.resolve()
    for name in (*WRITTEN, *FOREIGN):
        top = folder / name
        deep = top.rglob("*") if name in FOREIGN else top.iterdir()
        for path in (top, *(sorted(deep) if top.is_dir() else ())):
            counts = path == top or name in FOREIGN or path.is_dir()
            if path.is_symlink() and counts and not path.match(EXEMPT) and not _leads_into(path, root):
                raise AccessError(
                    f"{path} is a link to another folder.",
                    expected="no such link in a folder that vl2v writes to, since another person may have made it",
                    found=f"a link to {path.readlink()}",
                    next_step="if it is yours, put the folder itself in its place; else delete the link",
                )


def _leads_into(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links leads nowhere
        return True


def check_alone(file: Path) -> None:
    """Check that writing to a file in place cannot change other files. The file may be missing.

    Raises:
        AccessError: if it is a symbolic link, has several hard links, or is not a regular file.
    """
    try:
        status = os.lstat(file)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return
    if stat.S_ISLNK(status.st_mode):
        what = f"a link to {file.readlink()}"
    else:
        what = "a second name of another file" if stat.S_ISREG(status.st_mode) else "a folder, a pipe or a device"
    raise AccessError(
        f"Writing to {file} could change another file.",
        expected="a regular file with one name",
        found=what,
        next_step="if it is yours, put a copy in its place; else delete it",
    )


@contextmanager
def in_place(file: Path) -> Iterator[BinaryIO]:
    """Open a file for reading and writing in place; it is created if missing.

    Raises:
        AccessError: see `check_alone`.
        OSError: with the name of the file, if it cannot be opened or written.
    """
    check_alone(file)
    with naming(file):
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(file, flags, 0o666), "r+b") as handle:
            yield handle


def reserve(file: Path, size: int) -> None:
    """Extend a file to a minimum size and allocate its disk space.

    Later writes through a memory map then cannot fail. Without disk space, the system would kill the process.

    Args:
        file: path of the file; created if missing.
        size: minimum size in bytes.

    Raises:
        OSError: with the name of the file, if the disk is full.
    """
    with naming(file), file.open("ab") as handle:
        if hasattr(os, "posix_fallocate") and size:
            try:
                os.posix_fallocate(handle.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not supported by this file system
                    raise
        if handle.tell() < size:
            handle.truncate(size)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with atomic_write(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
