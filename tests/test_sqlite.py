from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from vl2v.sqlite import open_file


@pytest.fixture
def writing(tmp_path: Path) -> sqlite3.Connection:
    """A connection in the middle of writing a new file, like that of an earlier process."""
    other = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_opening_waits_while_another_process_writes_a_new_file(tmp_path: Path, writing: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(tmp_path / "new.sqlite")) as plain, pytest.raises(sqlite3.OperationalError):
        plain.execute("PRAGMA journal_mode=WAL")  # regardless of the timeout of five seconds
    timer = threading.Timer(0.2, writing.execute, ("COMMIT",))
    timer.start()
    with closing(open_file(tmp_path / "new.sqlite", "FULL")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    timer.join()
    writing.close()


def test_the_wait_is_limited(tmp_path: Path, writing: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.sqlite.PATIENCE", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_file(tmp_path / "new.sqlite")
    writing.close()


def test_other_files_are_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to have a header" * 10)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        open_file(tmp_path / "notes.txt")
