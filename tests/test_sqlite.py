from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from vl2v.sqlite import open_file


@pytest.fixture
def writing(tmp_path: Path) -> sqlite3.Connection:
    """A connection in the middle of writing a new file, as another process that came first would be."""
    other = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_new_file_that_another_is_writing_is_waited_for(tmp_path: Path, writing: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(tmp_path / "new.sqlite")) as plain, pytest.raises(sqlite3.OperationalError):
        plain.execute("PRAGMA journal_mode=WAL")  # whatever the timeout, of five seconds here
    timer = threading.Timer(0.2, writing.execute, ("COMMIT",))
    timer.start()
    with closing(open_file(tmp_path / "new.sqlite", "FULL")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    timer.join()
    writing.close()


def test_the_wait_has_an_end(tmp_path: Path, writing: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.sqlite.PATIENCE", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_file(tmp_path / "new.sqlite")
    writing.close()


def test_what_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to have a header" * 10)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        open_file(tmp_path / "notes.txt")
