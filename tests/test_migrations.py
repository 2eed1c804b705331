"""Persistent files are migrated to their newest form when they are opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from vl2v.errors import AccessError
from vl2v.sqlite import NamedConnection, migrate, open_file
from vl2v.teacher.purchase.ledger_table import MIGRATIONS
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.vendor_server.database import open_database

FIRST = ("CREATE TABLE IF NOT EXISTS things (name TEXT)", "ALTER TABLE things ADD COLUMN size INTEGER")
SECOND = ("UPDATE things SET size = 10 * size", "CREATE TABLE more (x)")


def bring(db: NamedConnection, *migrations: tuple[str, ...], read_only: bool = False) -> None:
    migrate(db, migrations, "things", "a file of things", "--things", read_only=read_only)


def version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_each_migration_applies_once(tmp_path: Path) -> None:
    with closing(open_file(tmp_path / "x.sqlite")) as db:
        bring(db, FIRST)
        db.execute("INSERT INTO things VALUES ('a', 2)")
        for _ in range(3):
            bring(db, FIRST, SECOND)
        assert db.execute("SELECT * FROM things").fetchall() == [("a", 20)]
        assert version(db) == 2
        for read_only in (False, True):
            with pytest.raises(AccessError, match=r"format 2; this version supports 1"):
                bring(db, FIRST, read_only=read_only)


@pytest.mark.parametrize("table", ["things (name TEXT)", "things (name TEXT, size INTEGER)"])
def test_a_file_without_a_version_is_migrated(tmp_path: Path, table: str) -> None:
    with closing(open_file(tmp_path / "x.sqlite")) as db:
        db.execute(f"CREATE TABLE {table}")
        bring(db, FIRST, read_only=True)
        assert version(db) == 0
        bring(db, FIRST)
        assert [row[1] for row in db.execute("PRAGMA table_info(things)")] == ["name", "size"]
        assert version(db) == 1


def test_a_failing_migration_changes_nothing(tmp_path: Path) -> None:
    with closing(open_file(tmp_path / "x.sqlite")) as db:
        bring(db, FIRST)
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            bring(db, FIRST, ("CREATE TABLE more (x)", "INSERT INTO absent VALUES (1)"))
        assert version(db) == 1
        assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["things"]
        bring(db, FIRST, SECOND)


def test_new_and_current_stores_have_the_newest_version(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    EmbeddingStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        assert version(db) == len(MIGRATIONS)
        db.execute("PRAGMA user_version = 0")  # as the versions before this one left it
    store = EmbeddingStore(path)
    assert store.entries() == []
    store.close()
    with closing(sqlite3.connect(path)) as db:
        assert version(db) == len(MIGRATIONS)


def test_a_vendor_database_of_another_program_or_a_newer_version_is_refused(tmp_path: Path) -> None:
    other, newer = tmp_path / "other.sqlite", tmp_path / "newer.sqlite"
    EmbeddingStore(other).close()
    for _ in range(2):
        open_database(f"sqlite:///{newer}").dispose()
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 7")
    for file, words in ((other, "another program, with the tables images, ledger"), (newer, "format 7; this version")):
        before = file.read_bytes()
        with pytest.raises(AccessError, match=words):
            open_database(f"sqlite:///{file}")
        assert file.read_bytes() == before
