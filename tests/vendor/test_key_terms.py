"""Expiry, rotation, quota and price of an account change under a running server; old databases are migrated."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from test_meter import postgres  # noqa: F401 - a fixture
from typer.testing import CliRunner
from vendor_serving import HTTP, PlainTeacher, bearer, local_server

from vl2v.cli import app
from vl2v.errors import ConfigError
from vl2v.teacher.base import Price
from vl2v.vendor_server.accounts import Account, Accounts
from vl2v.vendor_server.database import open_database
from vl2v.vendor_server.keys import KeyFault

PRICE = Price(Decimal("0.6"), Decimal("0.1"))


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2027, 1, 1, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(tmp_path: Path, clock: Clock) -> Accounts:
    return Accounts(open_database(f"sqlite:///{tmp_path}/accounts.sqlite"), clock)


def keys(db: str, *words: str) -> Any:
    return CliRunner().invoke(app, ["vendor", "keys", *words, "--db", db], env={"COLUMNS": "200"})


def test_a_key_expires_and_only_its_owner_learns_it(accounts: Accounts, clock: Clock) -> None:
    account, key = accounts.create("a", PRICE, expires=datetime(2027, 1, 3, tzinfo=UTC))
    assert isinstance(accounts.find(key), Account)
    clock.now += 2 * 86400
    assert accounts.find(key) is KeyFault.EXPIRED
    assert accounts.find(key[:-1] + ("A" if key[-1] != "A" else "B")) is KeyFault.UNKNOWN
    accounts.edit(account.id, expires=datetime(2027, 2, 1, tzinfo=UTC))
    assert isinstance(accounts.find(key), Account)
    accounts.edit(account.id, expires="never")
    clock.now += 10 * 365 * 86400
    assert isinstance(accounts.find(key), Account)
    accounts.revoke(account.id)
    assert accounts.find(key) is KeyFault.REVOKED


def test_a_rotated_key_works_until_its_grace_period_ends(accounts: Accounts, clock: Clock) -> None:
    account, first = accounts.create("a", PRICE)
    _, second = accounts.rotate(account.id, 3600)
    assert first[:22] == second[:22]
    assert first != second
    assert all(isinstance(accounts.find(key), Account) for key in (first, second))
    clock.now += 3601
    assert accounts.find(first) is KeyFault.REPLACED
    assert isinstance(accounts.find(second), Account)
    _, third = accounts.rotate(account.id, 3600)
    assert accounts.find(first) is KeyFault.UNKNOWN
    assert isinstance(accounts.find(second), Account)
    _, fourth = accounts.rotate(account.id, 0)
    assert [accounts.find(key) for key in (second, third)] == [KeyFault.UNKNOWN, KeyFault.REPLACED]
    assert isinstance(accounts.find(fourth), Account)
    accounts.revoke(account.id)
    assert [accounts.find(key) for key in (third, fourth)] == [KeyFault.REVOKED] * 2
    with pytest.raises(ConfigError, match="closed"):
        accounts.rotate(account.id, 0)


def test_wrong_terms_change_nothing(accounts: Accounts, clock: Clock) -> None:
    account, _ = accounts.create("a", PRICE, quota="1")
    wrong: list[dict[str, Any]] = [
        {"expires": datetime(2026, 1, 1, tzinfo=UTC)},
        {"quota": "-1"},
        {"quota": "lots"},
        {"price_per_1000_images": Decimal("0.0000001")},
        {"requests_per_minute": -5},
        {"name": ""},
    ]
    for values in wrong:
        with pytest.raises(ConfigError):
            accounts.edit(account.id, **{"name": "b", **values})
    assert accounts.get(account.id) == account
    with pytest.raises(ConfigError, match="Unknown account"):
        accounts.edit("0" * 16, name="x")


def test_terms_change_under_a_running_server(tmp_path: Path) -> None:
    with local_server(PlainTeacher(), tmp_path) as server:
        made = keys(
            server.db, "create", "a", "--price-per-1000-texts", "1", "--quota", "0.001", "--json", "--expires", "1d"
        )
        account = json.loads(made.stdout)
        key, body = account["key"], {"model": "plain", "input": ["x"]}
        assert account["expires"].startswith((datetime.now(UTC) + timedelta(days=1)).isoformat()[:10])

        def edit(*words: str) -> dict[str, Any]:
            result = keys(server.db, "edit", account["id"], "--json", *words)
            assert result.exit_code == 0, result.stderr
            changed: dict[str, Any] = json.loads(result.stdout)
            return changed

        assert server.ask(key, body).status_code == 200
        refused = server.ask(key, body)
        assert refused.status_code == 402
        assert f"raise the quota of account {account['id']}" in refused.json()["error"]["message"]
        assert edit("--quota", "0.01", "--price-per-1000-texts", "2")["quota"] == "0.01"
        assert server.ask(key, body).json()["usage"]["cost"] == "0.002"
        model = HTTP.get(f"{server.url}/v1/models", headers=bearer(key)).json()["data"][0]
        assert model["price"]["per_1000_texts"] == "2"
        assert edit("--quota", "none", "--requests-per-minute", "1")["quota"] is None
        assert [server.ask(key, body).status_code for _ in range(2)] == [200, 429]
        edit("--requests-per-minute", "0")
        new = edit("--rotate", "--grace-hours", "0")["key"]
        refused = server.ask(key, body)
        assert refused.status_code == 401
        assert refused.json()["error"]["message"] == "The API key is replaced by a new one; use the new one."
        assert server.ask(new, body).status_code == 200
        with sqlite3.connect(server.db.removeprefix("sqlite:///")) as file:
            file.execute("UPDATE accounts SET expires = 1")
        refused = server.ask(new, body)
        assert refused.status_code == 401
        assert refused.json()["error"] == {
            "message": "The API key is expired; ask the vendor for a new one.",
            "type": "authentication_error",
            "param": None,
            "code": "expired_api_key",
        }
        keys(server.db, "revoke", account["id"])
        assert "revoked; ask the vendor" in server.ask(new, body).json()["error"]["message"]


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        ("2099-01-31", "2099-02-01T00:00+00:00"),
        ("2099-12-31", "2100-01-01T00:00+00:00"),
        ("2099-01-31T12:00", "2099-01-31T12:00+00:00"),
        ("2099-01-31T12:00+02:00", "2099-01-31T10:00+00:00"),
    ],
)
def test_expiry_times_are_stored_in_utc(tmp_path: Path, expires: str, expected: str) -> None:
    db = f"sqlite:///{tmp_path}/accounts.sqlite"
    assert json.loads(keys(db, "create", "a", "--expires", expires, "--json").stdout)["expires"] == expected
    assert f"to {expected[:10]}" in keys(db, "list").stdout


@pytest.mark.parametrize("expires", ["", "0d", "tomorrow", "2020-01-01", "9999-12-31", "99999999d", "-3d", "3m"])
def test_wrong_expiry_times_are_refused(tmp_path: Path, expires: str) -> None:
    result = keys(f"sqlite:///{tmp_path}/accounts.sqlite", "create", "a", f"--expires={expires}")
    assert result.exit_code == 2
    assert "expire" in result.stderr
    assert "Traceback" not in result.output


def test_the_terminal_shows_the_rotated_key(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path}/accounts.sqlite"
    account = keys(db, "create", "a").stdout.split()[1]
    expected = keys(db, "edit", account, "--rotate").stdout
    assert re.search(r"key     vl2v-\S{60}", expected)
    assert "The old key is valid until" in expected
    assert "name                   b" in keys(db, "edit", account, "--name", "b").stdout


OLD_ACCOUNTS = """CREATE TABLE accounts (id VARCHAR(16) NOT NULL PRIMARY KEY, name VARCHAR(200) NOT NULL,
digest VARCHAR(64) NOT NULL, image_nano BIGINT NOT NULL, text_nano BIGINT NOT NULL, currency VARCHAR(8) NOT NULL,
quota_nano BIGINT, requests_per_minute INTEGER, created FLOAT NOT NULL, revoked FLOAT, spent_nano BIGINT NOT NULL,
images BIGINT NOT NULL, texts BIGINT NOT NULL, requests BIGINT NOT NULL)"""


def check_migration(db: str, make: Any) -> None:
    """A database of the first version with one account opens and can be edited."""
    key = f"vl2v-{'0' * 16}-{'k' * 43}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    make(OLD_ACCOUNTS)
    make(f"INSERT INTO accounts VALUES ('{'0' * 16}','old','{digest}',600,100,'USD',NULL,NULL,1e9,NULL,5,1,2,3)")
    engine = open_database(db)
    engine.dispose()
    engine = open_database(db)
    try:
        accounts = Accounts(engine)
        account = accounts.find(key)
        assert isinstance(account, Account)
        assert (account.name, account.spent_nano, account.expires) == ("old", 5, None)
        _, new = accounts.rotate("0" * 16, 3600)
        assert isinstance(accounts.find(key), Account)
        assert isinstance(accounts.find(new), Account)
    finally:
        engine.dispose()  # PostgreSQL's shutdown waits for its clients


def test_a_database_of_the_first_version_is_migrated(tmp_path: Path) -> None:
    file = tmp_path / "old.sqlite"

    def make(statement: str) -> None:
        with sqlite3.connect(file) as connection:
            connection.execute(statement)

    check_migration(f"sqlite:///{file}", make)


@pytest.mark.slow
def test_a_postgresql_database_is_migrated(postgres: str) -> None:
    engine = create_engine(postgres.replace("postgresql://", "postgresql+psycopg://"))

    def make(statement: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    for table in ("answers", "bills", "probes", "accounts"):
        make(f"DROP TABLE IF EXISTS {table}")
    try:
        check_migration(postgres, make)
    finally:
        engine.dispose()
