"""Convert errors of files, disks, memory and limits."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vl2v.errors import AccessError, DiskFullError, Vl2vError
from vl2v.locations import Location, location_of

FOUND = {  # by errno
    errno.EROFS: "the disk is mounted read-only",
    errno.EACCES: "this user has no permission",
    errno.EPERM: "the system does not permit it",
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "a folder instead of a file",
    errno.EEXIST: "something else with that name",
    errno.ENAMETOOLONG: "a name that is too long for this file system",
    errno.ELOOP: "a loop of links",
    errno.EFBIG: "a file larger than the file system or ulimit -f allows",
    errno.EIO: "an input/output error; the disk or the network drive may be failing",
    errno.EXDEV: "a link between two disks",
    errno.ESTALE: "a network drive that lost the file",
    errno.ETXTBSY: "a file in use",
    errno.EBUSY: "a file or folder in use",
    errno.EINVAL: "a name that this file system does not allow",
}
RAISE = "raise the limit for this shell (ulimit -f unlimited), or use another disk; then run the same command again"
LITTLE = 1 << 20  # free bytes below which a disk counts as full


def path_of(error: BaseException) -> Path | None:
    """Return the path that an error contains, if any."""
    name = getattr(error, "filename", None)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    return Path(name) if isinstance(name, str | os.PathLike) and name else None


def system(error: BaseException, locations: Sequence[Location]) -> Vl2vError | None:
    """Convert an error of the operating system; None for any other exception."""
    if problem := _of_resources(error):
        return problem
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
        return None
    path = path_of(error)
    location = location_of(path, locations)
    reason = dangling(path) if error.errno != errno.ELOOP else ""
    if not reason and (not error.errno or error.strerror in (None, "", os.strerror(error.errno))):  # not words of vl2v
        reason = FOUND.get(error.errno or 0, "")
    reason = reason or error.strerror or str(error)
    subject, expected, step = (
        "A file",
        "a path that this user may read and write",
        "correct the path, or its permissions",
    )
    if location:
        expected = f"{location.purpose} ({location.option}) where this user may read and write"
        subject, step = location.option, location.advice
    if reason == FOUND[errno.EFBIG]:
        step = RAISE
    return AccessError(f"{path or subject} cannot be used.", expected=expected, found=reason, next_step=step)


def _of_resources(error: BaseException) -> AccessError | None:
    """Convert an error of memory, locks, open files or temporary files; None for any other exception."""
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        error = MemoryError(str(error.strerror))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        step = "use a smaller --size or --batch-per-domain, fewer --workers, or a machine with more memory"
        found = " ".join(str(error).split())[:200] or "no memory left"
        return AccessError(
            "There is not enough memory.", expected="memory for the images of a step", found=found, next_step=step
        )
    if isinstance(error, NotImplementedError) and "flock" in str(error):
        step = "use a local disk: --cache, --store, --out"
        found = "a file system without locks, such as some network drives"
        return AccessError(
            "A file cannot be locked.", expected="a file system that supports locks", found=found, next_step=step
        )
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.EMFILE, errno.ENFILE):
        step = "raise it for this shell: ulimit -n 4096; or use fewer --workers"
        return AccessError(
            "Too many files are open.", expected="a higher limit", found=str(error.strerror), next_step=step
        )
    if error.errno == errno.ENOENT and "temporary directory" in str(error):
        return AccessError(
            "There is no folder for temporary files.",
            expected="a writable folder",
            found=str(error.strerror or error)[:200],
            next_step="make one of them writable, or choose another folder: TMPDIR=/path",
        )
    return None


def file_limit() -> int:
    """Return the bytes that a file may have according to ``ulimit -f``; 0 without a limit."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return 0 if limit == resource.RLIM_INFINITY else limit


def dangling(path: Path | None) -> str:
    """Describe the first broken link on a path; empty if there is none."""
    for part in (path, *path.parents) if path else ():
        with suppress(OSError):  # a folder on the path without permission
            if part.is_symlink() and not part.exists():
                return f"{part} is a link to {part.readlink()}, which is missing"
    return ""


def disk_full(error: BaseException, locations: Sequence[Location] = ()) -> DiskFullError | None:
    """Convert a disk-full error of the system or of a database; None for any other exception."""
    text = str(error).lower()
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    is_full = is_full or (isinstance(error, sqlite3.Error) and "full" in text) or "no space left on device" in text
    return full(path_of(error), locations) if is_full else None


def full(path: Path | None, locations: Sequence[Location]) -> DiskFullError:
    """Return the error for a full disk: that of the path, or, without a path, the first location that is full."""
    if path is None:
        path = next((location.path for location in locations if no_room(location.path)), None)
    location, again = location_of(path, locations), "then run the same command again (vl2v distill with --resume)"
    where = str(path) if path else "the disk"
    inodes = path is not None and no_room(path) == "files"
    if location is None:
        step = f"free some space, or move --cache, --store and --out to another disk, {again}"
    else:
        step = f"free some space there, or {location.advice}; {again}"
    return DiskFullError(
        "The disk is full.",
        expected=f"space for {location.purpose} ({location.option})" if location else "space for the file",
        found=f"no {'further file' if inodes else 'space left'} while writing {where}",
        next_step=step,
    )


def no_room(path: Path) -> str:
    """Return ``bytes`` or ``files``, whichever the disk of a path has run out of; empty if neither or unknown."""
    try:
        while not path.exists() and path != path.parent:
            path = path.parent
        disk = os.statvfs(path)
    except (OSError, AttributeError):  # Windows has no statvfs
        return ""
    if disk.f_files and not disk.f_favail:
        return "files"
    return "bytes" if disk.f_bavail * disk.f_frsize < LITTLE else ""
