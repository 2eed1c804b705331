"""Atomic writes that no link can redirect out of the folder.

A run's folder may come from a stranger, who may have planted links in it. `replacing` takes the place of a link and
leaves alone what it points to; `in_place` and `check_alone` refuse one; `check_folder` refuses folders in it that are
links to other places.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vl2v.errors import AccessError
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


WRITTEN = ("student", "export", "report", "work", "jobs", "locks", "running", "vectors")  # folders, by vl2v
FOREIGN = ("tensorboard", "wandb", "mlruns")  # by packages of others, which follow links


def check_folder(folder: Path) -> None:
    """Refuse a run's, student's or benchmark's folder if what is written to its folders could land elsewhere.

    A link to a folder outside is refused in the folders that vl2v writes to, and any link to the outside in those of
    trackers, at any depth.

    Raises:
        AccessError: if so.
    """
    root = folder.resolve()
    for name in (*WRITTEN, *FOREIGN):
        top = folder / name
        deep = top.rglob("*") if name in FOREIGN else top.iterdir()
        for path in (top, *(sorted(deep) if top.is_dir() else ())):
            counts = path == top or name in FOREIGN or path.is_dir()
            if path.is_symlink() and counts and not _leads_into(path, root):
                raise AccessError(
                    f"{path} is a link to another folder.",
                    expected="folders of its own in a folder that vl2v writes to: it may come from another person",
                    found=f"a link to {path.readlink()}",
                    next_step="if it is yours, put the folder itself in its place; else delete the link",
                )


def _leads_into(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links leads nowhere
        return True


def check_alone(file: Path) -> None:
    """Refuse a file that is written in place if other files could change with it; it may be missing.

    Raises:
        AccessError: if it is a link, has a second name in the file system, or is no file.
    """
    try:
        found = os.lstat(file)
    except OSError:
        return
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return
    if stat.S_ISLNK(found.st_mode):
        what = f"a link to {file.readlink()}"
    else:
        what = "a second name of another file" if stat.S_ISREG(found.st_mode) else "a folder, a pipe or a device"
    raise AccessError(
        f"{file} is not written to.",
        expected="a file of its own",
        found=what,
        next_step="if it is yours, put a copy in its place; else delete it",
    )


@contextmanager
def in_place(file: Path) -> Iterator[BinaryIO]:
    """Open a file to read and change it where it is; made if missing.

    Raises:
        AccessError: see `check_alone`.
        OSError: with the file's name, if it cannot be opened or written.
    """
    check_alone(file)
    with naming(file):
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(file, flags, 0o666), "r+b") as handle:
            yield handle


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
