"""The vendor's database: accounts, bills, and responses stored for repeated requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from vl2v.errors import ConfigError, MissingExtraError
from vl2v.sqlite import check_kind, write_ahead

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the key, which itself is not stored
    Column("image_nano", BigInteger, nullable=False),  # price of one image
    Column("text_nano", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("quota_nano", BigInteger),  # None: no limit
    Column("requests_per_minute", Integer),  # None: no limit
    Column("created", Float, nullable=False),
    Column("revoked", Float),
    Column("spent_nano", BigInteger, nullable=False, default=0),
    Column("images", BigInteger, nullable=False, default=0),
    Column("texts", BigInteger, nullable=False, default=0),
    Column("requests", BigInteger, nullable=False, default=0),
    Column("expires", Float),  # None: never
    Column("old_digest", String(64)),  # of the key before the last rotation
    Column("old_until", Float),
)

bills = Table(
    "bills",
    metadata,
    Column("id", String(32), primary_key=True),  # the request's
    Column("account", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("time", Float, nullable=False),
    Column("images", Integer, nullable=False),
    Column("texts", Integer, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("account", ForeignKey("accounts.id"), primary_key=True),
    Column("key", String(255), primary_key=True),  # the client's Idempotency-Key
    Column("request_digest", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("expires", Float, nullable=False),
    Index("answers_expires", "expires"),
)

probes = Table(  # one row, written to test whether the disk has space
    "probes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("padding", LargeBinary, nullable=False),
)
PROBE_BYTES = 65_536
VERSION = 0  # PRAGMA user_version of a SQLite file; new tables and columns are added without a new version

LOCKS = {  # until the end of the transaction, so that two servers do not create the tables at the same time
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "SELECT pg_advisory_xact_lock(1986802294)",
}


def _pragmas(connection: Any, _: Any) -> None:
    """Set up SQLite: readers do not block the writer, commits survive a power failure, and writers wait."""
    write_ahead(connection)
    for pragma in ("synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def open_database(address: str) -> Engine:
    """Open the database of the vendor; it is created if necessary.

    Args:
        address: ``sqlite:///file`` or ``postgresql://user:password@host/name``.

    Raises:
        ConfigError: if the database cannot be opened; the message contains no password.
        AccessError: if it is a SQLite file of another program or a newer version of vl2v.
    """
    try:
        url = make_url(address)
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):  # such as a port that is not a number
        raise _unusable("not a URL") from None
    if "\0" in address:
        raise _unusable("a NUL character")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise _unusable(f"a database of another kind ({url.get_backend_name()[:40]})")
    public_address = url.render_as_string(hide_password=True)
    lite = url.get_backend_name() == "sqlite"
    if lite and (not url.database or url.database == ":memory:"):
        raise _unusable("SQLite without a file")
    if lite and url.query:
        raise _unusable(f"{public_address}, with options after ?")
    if lite and not Path(str(url.database)).resolve().parent.is_dir():
        raise _unusable(f"{public_address}, in a folder that does not exist")
    try:
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=not lite)
        if lite:
            event.listen(engine, "connect", _pragmas)
        _make_tables(engine)
    except ModuleNotFoundError as error:
        raise MissingExtraError("PostgreSQL", "vendor", "psycopg") from error
    except NoSuchModuleError:
        raise _unusable(public_address) from None
    except SQLAlchemyError as error:
        raise _unusable(f"{public_address}, which fails with {type(error).__name__}") from None
    return engine


def write_probe(engine: Engine) -> None:
    """Write as many bytes as a response may need, and commit.

    Raises:
        SQLAlchemyError: if the database cannot be written, e.g. because the disk is full.
    """
    with engine.begin() as connection:
        connection.execute(delete(probes))
        connection.execute(insert(probes).values(id=1, padding=bytes(PROBE_BYTES)))


def _make_tables(engine: Engine) -> None:
    """Create missing tables and columns, under a lock, in case several servers start at once."""
    with engine.begin() as connection:
        connection.exec_driver_sql(LOCKS[engine.dialect.name])
        inspector = inspect(connection)
        if engine.dialect.name == "sqlite":
            version, tables = (
                connection.exec_driver_sql("PRAGMA user_version").scalar_one(),
                inspector.get_table_names(),
            )
            file, what = str(engine.url.database), "a vendor's database"
            check_kind(file, version, VERSION, tables, accounts.name, what, "--db")
        existing = {
            name: {column["name"] for column in inspector.get_columns(name)} for name in inspector.get_table_names()
        }
        metadata.create_all(connection)
        for table in metadata.sorted_tables:
            for column in table.columns:
                if column.name not in existing.get(table.name, {column.name}):
                    _add_column(connection, table, column)


def _add_column(connection: Connection, table: Table, column: Column[Any]) -> None:
    """Add a column that the database of an earlier version lacks; it is NULL in existing rows."""
    assert column.nullable, column
    kind = column.type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")


def _unusable(found: str) -> ConfigError:
    return ConfigError(
        "The vendor's database cannot be opened.",
        expected="sqlite:///<file>, or postgresql://<user>:<password>@<host>/<database>",
        found=found,
        next_step="correct --db or VL2V_VENDOR_DB, and check that the database runs",
    )
