"""SQLite files that several processes open at once."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

PATIENCE = 60.0  # seconds to wait for another process


def open_file(path: Path, synchronous: str = "NORMAL", check_same_thread: bool = True) -> sqlite3.Connection:
    """Open a file in autocommit mode; where others write, readers go on and writers wait.

    Args:
        path: made if missing, with its folder.
        synchronous: ``FULL`` if a commit has to survive a loss of power, ``NORMAL`` if the file need only stay whole.
        check_same_thread: refuse every thread but this one.

    Raises:
        sqlite3.OperationalError: if it cannot be opened, or another process kept it locked for `PATIENCE` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, PATIENCE, isolation_level=None, check_same_thread=check_same_thread)
    write_ahead(db)
    db.execute(f"PRAGMA synchronous={synchronous}")
    return db


def write_ahead(db: sqlite3.Connection) -> None:
    """Change a file to write-ahead logging, if it is not there yet.

    A connection's timeout does not hold for this one statement: of two processes that open a new file together, SQLite
    refuses one at once. So it is asked again.

    Raises:
        sqlite3.OperationalError: as `open_file`.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return
