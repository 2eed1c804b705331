"""Convert errors of SQLite."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from vl2v.errors import AccessError, DamagedError, Vl2vError
from vl2v.faults.system import FOUND, RAISE, dangling, file_limit, full, no_room, path_of
from vl2v.locations import CACHE, Location, location_of


def database(error: sqlite3.Error, locations: Sequence[Location]) -> Vl2vError:
    """Convert an exception of SQLite whose attribute `filename` is the path of the file."""
    path, code = path_of(error), getattr(error, "sqlite_errorcode", 0) & 0xFF
    location = location_of(path, locations)
    subject, message = str(path or "The database"), str(error)
    kind = location.purpose if location else "a SQLite file"
    step = location.advice if location else "choose another file"
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and path and no_room(path)):
        return full(path, locations)
    if code == sqlite3.SQLITE_IOERR and (limit := file_limit()):
        found = f"{message}; ulimit -f allows files of at most {limit:,} bytes"
        return AccessError(f"{subject} cannot be written.", expected=kind, found=found, next_step=RAISE)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        step = f"wait for the other process, or end it (fuser {path} shows which); then run the same command again"
        return AccessError(f"{subject} is locked by another process.", expected=kind, found=message, next_step=step)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, location, message)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM):
        reason = _reason(path) if path else ""
        expected = f"{kind}{f' ({location.option})' if location else ''}, in a folder where this user may write"
        return AccessError(
            f"{subject} cannot be opened for writing.", expected=expected, found=reason or message, next_step=step
        )
    if code == sqlite3.SQLITE_NOMEM:
        return AccessError("There is not enough memory.", expected=kind, found=message, next_step="free some memory")
    return DamagedError(
        f"{subject} has another format.",
        expected=f"{kind}, as this version of vl2v writes it",
        found=message,
        next_step="use the version of vl2v that wrote it, or choose another file",
    )


def _damaged(path: Path | None, location: Location | None, message: str) -> DamagedError:
    if location and location.option == CACHE:
        step = "run the same command again: the cache is rebuilt (or delete its folder)"
    else:
        step = (
            f"restore a backup, or recover what is readable: sqlite3 {path} .recover | sqlite3 saved.sqlite; "
            "then use that file (--store saved.sqlite). vl2v never deletes it, because it contains what was paid for"
        )
    kind = location.purpose if location else "a SQLite file"
    return DamagedError(
        f"{path or 'The database'} is damaged.", expected=f"{kind}, undamaged", found=message, next_step=step
    )


def _reason(path: Path) -> str:
    """Find out why SQLite cannot open a file, which its message does not state."""
    try:
        os.close(os.open(path, os.O_RDWR))
    except FileNotFoundError:
        if reason := dangling(path):
            return reason
    except OSError as error:
        return FOUND.get(error.errno or 0, error.strerror or "")
    if not path.parent.is_dir():
        return f"{path.parent} is not a folder"
    if hasattr(os, "statvfs") and os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        return FOUND[errno.EROFS]
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"{path.parent}: {FOUND[errno.EACCES]}; SQLite creates files next to the database"
    return ""
