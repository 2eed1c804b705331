"""SQLite files that several processes open; errors name the file, and a damaged cache is rebuilt."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from vl2v.errors import AccessError
from vl2v.locking import file_lock

PATIENCE = 60.0  # seconds to wait for another process
SUFFIXES = ("", "-wal", "-shm", "-journal")  # of a database and the files that SQLite creates next to it
VARIABLES = 500  # values of one query, below the limit of old versions of SQLite
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

P = ParamSpec("P")
T = TypeVar("T")


def _named(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Decorate a method, so that its exceptions have the attribute `filename`, as those of the system do."""

    @wraps(method)
    def inner(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            error.filename = self.connection.file  # type: ignore[attr-defined]
            raise

    return inner


class NamedCursor(sqlite3.Cursor):
    """A cursor whose exceptions have the attribute `filename`."""

    execute = _named(sqlite3.Cursor.execute)
    executemany = _named(sqlite3.Cursor.executemany)
    fetchone = _named(sqlite3.Cursor.fetchone)
    fetchall = _named(sqlite3.Cursor.fetchall)
    __next__ = _named(sqlite3.Cursor.__next__)


class NamedConnection(sqlite3.Connection):
    """A connection whose exceptions have the attribute `filename`."""

    file = ""

    def cursor(self, factory: Any = NamedCursor) -> Any:
        """See `sqlite3.Connection.cursor`."""
        return super().cursor(factory)

    def execute(self, *args: Any) -> Any:
        """See `sqlite3.Connection.execute`."""
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        """See `sqlite3.Connection.executemany`."""
        return self.cursor().executemany(*args)


def open_file(
    path: Path, synchronous: str = "NORMAL", check_same_thread: bool = True, read_only: bool = False
) -> NamedConnection:
    """Open a database in autocommit mode. Readers are not blocked by writers, and writers wait for each other.

    Args:
        path: path of the file; created with its folder if missing.
        synchronous: ``FULL`` if commits must survive a power failure, ``NORMAL`` if the file must only stay consistent.
        check_same_thread: whether only this thread may use the connection.
        read_only: open an existing file, also on a read-only disk. Writes of other processes may then be invisible.

    Raises:
        OSError: if the folder cannot be created, or the path is a pipe or a device (EINVAL), on which SQLite waits.
        sqlite3.Error: with the attribute `filename`, if the file cannot be opened, is not a SQLite file, or is locked
            by another process for `PATIENCE` seconds.
    """
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    db = None
    try:
        db = _connect(path, check_same_thread, read_only)
        if not read_only:
            write_ahead(db)
            db.execute(f"PRAGMA synchronous={synchronous}")
    except sqlite3.Error as error:
        if db is not None:
            db.close()
        error.filename = str(path)  # type: ignore[attr-defined]
        raise
    return db


def _connect(path: Path, check_same_thread: bool, read_only: bool) -> NamedConnection:
    more: dict[str, Any] = {"isolation_level": None, "check_same_thread": check_same_thread, "factory": NamedConnection}
    address = f"{path.absolute().as_uri()}?mode=ro" if read_only else path
    db: NamedConnection = sqlite3.connect(address, PATIENCE, uri=read_only, **more)
    try:
        if read_only:
            db.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:  # write-ahead logging needs a second file, which cannot be created
        db.close()
        db = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", PATIENCE, uri=True, **more)
    db.file = str(path)
    return db


def migrate(
    db: NamedConnection,
    migrations: Sequence[Sequence[str]],
    table: str,
    what: str,
    option: str,
    *,
    read_only: bool = False,
) -> None:
    """Migrate a database to the newest version; ``PRAGMA user_version`` counts the applied migrations.

    Args:
        migrations: groups of SQL statements, one per version. The first group also applies to files from before
            versions were counted, so it must only create what is missing.
        table: name of a table that every database of this kind has.
        what: kind of the database, for messages.
        option: option of the command line that sets the path, for messages.
        read_only: only check the file.

    Raises:
        AccessError: if the file belongs to another program or a newer version of vl2v.
    """
    if not read_only:
        db.execute("BEGIN IMMEDIATE")  # only one of several processes migrates the file
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        check_kind(db.file, version, len(migrations), tables, table, what, option)
        if not read_only:
            for group in migrations[version:]:
                for statement in group:
                    _execute(db, statement)
            db.execute(f"PRAGMA user_version = {len(migrations):d}")
            db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def check_kind(
    file: str, version: int, supported_version: int, tables: Sequence[str], table: str, what: str, option: str
) -> None:
    """Check that this version of vl2v can write a database.

    Args:
        version: its ``PRAGMA user_version``.
        supported_version: highest version that this version of vl2v supports.
        table: see `migrate`; also for the following arguments.

    Raises:
        AccessError: if the file belongs to another program or a newer version of vl2v.
    """
    found = step = ""
    if tables and table not in tables:
        found = f"a file of another program, with the tables {', '.join(sorted(tables)[:5])}"
        step = "choose another file"
    elif version > supported_version:
        found = f"a file of a newer version (format {version}; this version supports {supported_version})"
        step = "install a newer vl2v"
    if found:
        problem, step = f"This version cannot write to {file}.", f"{step}: {option}"
        raise AccessError(problem, expected=f"{what}, or a new file", found=found, next_step=step)


def _execute(db: NamedConnection, statement: str) -> None:
    """Execute a statement; a column that already exists is not added again."""
    try:
        db.execute(statement)
    except sqlite3.OperationalError as error:
        if "duplicate column name" not in str(error):
            raise


def open_cache(path: Path, schema: Sequence[str], version: int = 0) -> tuple[NamedConnection, bool]:
    """Open a cache, and say whether it is new; a file that is damaged or of another format is replaced by an empty one.

    Args:
        path: path of the file; created with its folder if missing.
        schema: ``CREATE TABLE IF NOT EXISTS`` statements.
        version: version of the content; a file with another version is replaced.

    Raises:
        OSError, sqlite3.Error: as `open_file`, except for damage.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_name(f"{path.name}.lock")):  # only one of several processes replaces a damaged file
        new = not path.exists()
        if not new and not _usable(path, schema, version):
            new = True
            for suffix in SUFFIXES:
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        db = open_file(path)
        try:
            for statement in schema:
                db.execute(statement)
            if new:
                db.execute(f"PRAGMA user_version = {version:d}")
        except BaseException:
            db.close()
            raise
        return db, new


def _usable(path: Path, schema: Sequence[str], version: int) -> bool:
    try:
        with closing(open_file(path)) as db:
            return bool(db.execute("PRAGMA user_version").fetchone()[0] == version) and _whole(db, schema)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE:
            return False
        raise


def _whole(db: sqlite3.Connection, schema: Sequence[str]) -> bool:
    """Whether all pages are readable, and the existing tables have the columns of the schema."""
    if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        return False
    with closing(sqlite3.connect(":memory:")) as template:
        for statement in schema:
            template.execute(statement)
        names = [row[0] for row in template.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {name: _columns(template, name) for name in names}
    return all(existing == columns[name] for name in names if (existing := _columns(db, name)))


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def write_ahead(db: sqlite3.Connection) -> None:
    """Switch a database to write-ahead logging.

    The timeout of a connection does not apply to this statement: if two processes open a new file at the same time, it
    fails immediately in one of them. Therefore it is retried.

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


def keys_of(digests: NDArray[np.uint8]) -> list[bytes]:
    """Return the bytes of each row of [N, 32] digests."""
    rows: list[bytes] = np.ascontiguousarray(digests).view("V32").ravel().tolist()
    return rows


def rows_of(db: NamedConnection, query: str, values: Sequence[Any], *fixed: Any) -> Iterator[tuple[Any, ...]]:
    """Rows of a query for many values, which are looked up together: a query for each would take most of the time.

    Args:
        query: ends in ``IN``, without the values.
        values: one or more times, in any order.
        fixed: values of the parameters before ``IN``.

    Yields:
        The rows of the values that there are, in any order; once for a value of one look-up.
    """
    for start in range(0, len(values), VARIABLES):
        some = values[start : start + VARIABLES]
        # Iterating over the cursor would pass through Python for each row.
        yield from db.execute(f"{query} ({','.join('?' * len(some))})", (*fixed, *some)).fetchall()
