"""`vl2v vendor keys ...`: manage accounts and keys. Heavy imports happen when a command runs."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vl2v.cli.common import amount, ensure_effect, group, money, need_packages, within
from vl2v.errors import ConfigError
from vl2v.terminal import say

if TYPE_CHECKING:
    from vl2v.vendor_server.accounts import Account, Accounts

Db = Annotated[
    str, typer.Option("--db", envvar="VL2V_VENDOR_DB", help="sqlite:///<file> or postgresql://<user>@<host>/<name>.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(help="Id of the account, from vl2v vendor keys list.")]
DEFAULT_DB = "sqlite:///vl2v-vendor.sqlite"
EXPIRES = "When the key stops working: 90d, 12h, 2027-01-31 (its end, UTC) or 2027-01-31T12:00+01:00"
IMAGES = ("The price per 1000 images", "--price-per-1000-images")
TEXTS = ("The price per 1000 texts", "--price-per-1000-texts")
QUOTA = ("The quota", "--quota")
GRACE = 24.0  # hours
DURATION = re.compile(r"([1-9][0-9]{0,4})([dh])")


def create(
    name: Annotated[str, typer.Argument(help="Name of the client.")],
    price_per_1000_images: Annotated[str, typer.Option(help="Price of 1000 images.")] = "0",
    price_per_1000_texts: Annotated[str, typer.Option(help="Price of 1000 texts.")] = "0",
    currency: Annotated[str, typer.Option(help="Currency of prices and quota.")] = "USD",
    quota: Annotated[
        str | None, typer.Option(help="The most that the account may spend in total (default: unlimited).")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Rate limit (default: none).")] = None,
    expires: Annotated[str | None, typer.Option(help=f"{EXPIRES} (default: never).")] = None,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Create an account and show its key once."""
    from vl2v.teacher.base import Price

    price = Price(amount(price_per_1000_images, *IMAGES), amount(price_per_1000_texts, *TEXTS), currency)
    if quota is not None:
        amount(quota, *QUOTA)
    end = None if expires is None else _time(expires)
    account, key = _accounts(db).create(name, price, quota=quota, requests_per_minute=requests_per_minute, expires=end)
    _print(account, key, as_json)


def edit(
    account: Id,
    name: Annotated[str | None, typer.Option(help="Name of the client.")] = None,
    price_per_1000_images: Annotated[str | None, typer.Option(help="The new price of 1000 images.")] = None,
    price_per_1000_texts: Annotated[str | None, typer.Option(help="The new price of 1000 texts.")] = None,
    quota: Annotated[
        str | None, typer.Option(help="The most that the account may spend in total, including past spending; or none.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(**within("Rate limit; 0 for none.", 0))] = None,
    expires: Annotated[str | None, typer.Option(help=f"{EXPIRES}; or never.")] = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="Create a new key and show it once.")] = False,
    grace_hours: Annotated[
        float, typer.Option(**within("How long the old key remains valid, in hours.", 0, 8760))
    ] = GRACE,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Change an account or its key. A running server applies the change from the next request on."""
    end: datetime | Literal["never"] | None = None
    if expires is not None:
        end = "never" if expires == "never" else _time(expires)
    prices = money(price_per_1000_images, *IMAGES), money(price_per_1000_texts, *TEXTS)
    if quota is not None and quota != "none":
        amount(quota, *QUOTA)
    ensure_effect("--rotate", rotate, {"--grace-hours": grace_hours != GRACE})
    accounts, key = _accounts(db), None
    record = accounts.edit(
        account,
        name=name,
        price_per_1000_images=prices[0],
        price_per_1000_texts=prices[1],
        quota=quota,
        requests_per_minute=requests_per_minute,
        expires=end,
    )
    if rotate:
        record, key = accounts.rotate(account, grace_hours * 3600)
    _print(record, key, as_json)


def show(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """List accounts with their quota and spending."""
    accounts = _accounts(db).all()
    if as_json:
        print(json.dumps([_row(account) for account in accounts]))
        return
    rows = [_row(account) | {"state": _state(account)} for account in accounts]
    from rich.table import Table

    from vl2v.terminal import console

    table = Table(box=None)
    columns = ("id", "name", "requests", "images", "texts", "spent", "quota", "currency", "state")
    for column in columns:
        table.add_column(column, no_wrap=column == "id")  # revoking needs all of it
    for row in rows:
        table.add_row(*("-" if row[column] is None else str(row[column]) for column in columns))
    console().print(table)


def revoke(account: Id, db: Db = DEFAULT_DB) -> None:
    """Close an account; its key is rejected from now on."""
    closed = _accounts(db).revoke(account)
    print(f"account {closed.id} is closed")


def _accounts(db: str) -> Accounts:
    need_packages("The vendor service", "vendor", "sqlalchemy")
    from vl2v.vendor_server.accounts import Accounts
    from vl2v.vendor_server.database import open_database

    return Accounts(open_database(db))


def _print(account: Account, key: str | None, as_json: bool) -> None:
    row = _row(account)
    if as_json:
        print(json.dumps(row | ({} if key is None else {"key": key})))
        return
    if key is None:
        say("\n".join(f"{name:<22} {'-' if value is None else value}" for name, value in row.items()), sys.stdout)
        return
    print(f"account {account.id}\nkey     {key}\nThe key is not stored and cannot be shown again.")
    if account.old_until is not None:
        print(f"The old key is valid until {account.old_until.isoformat(timespec='minutes')}.")


def _state(account: Account) -> str:
    if account.revoked is not None:
        return "revoked"
    if account.expires is None:
        return "open"
    return f"to {account.expires:%Y-%m-%d}" if account.expires > datetime.now(UTC) else "expired"


def _time(text: str) -> datetime:
    """A time to come, as typed: a duration from now, a date (its end, UTC), or a date with a time."""
    if match := DURATION.fullmatch(text):
        return datetime.now(UTC) + timedelta(**{{"d": "days", "h": "hours"}[match[2]]: int(match[1])})
    try:
        when = datetime.fromisoformat(text)
        if re.fullmatch(r"\d{4}-?\d\d-?\d\d", text):
            when += timedelta(days=1)
    except (ValueError, OverflowError):
        expected = "90d, 12h, 2027-01-31 or 2027-01-31T12:00+01:00"
        raise ConfigError(
            "The expiry time cannot be parsed.", expected=expected, found=text[:40], next_step="correct --expires"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _row(account: Account) -> dict[str, Any]:
    from vl2v.vendor_server.money import written

    return {
        "id": account.id,
        "name": account.name,
        "requests": account.requests,
        "images": account.images,
        "texts": account.texts,
        "spent": written(account.spent_nano),
        "quota": None if account.quota_nano is None else written(account.quota_nano),
        "currency": account.currency,
        "price_per_1000_images": written(account.image_nano * 1000),
        "price_per_1000_texts": written(account.text_nano * 1000),
        "requests_per_minute": account.requests_per_minute,
        "created": account.created.isoformat(),
        "expires": None if account.expires is None else account.expires.isoformat(timespec="minutes"),
        "revoked": None if account.revoked is None else account.revoked.isoformat(),
    }


COMMANDS = group("keys", "Manage accounts and their keys.", create=create, list=show, edit=edit, revoke=revoke)
