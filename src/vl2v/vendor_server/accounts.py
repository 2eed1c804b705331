"""Accounts of clients in the database. A key is shown only once; the database stores its digest."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Engine, Row, insert, select, update

from vl2v.errors import ConfigError
from vl2v.teacher.base import Price
from vl2v.vendor_server.database import accounts
from vl2v.vendor_server.keys import KeyFault, account_id, digest, fault_of_key, new_key
from vl2v.vendor_server.money import to_nano
from vl2v_runtime.names import has_control

LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()  # seconds; with every offset still a date
CORRECT = "correct the option"


@dataclass(frozen=True)
class Account:
    """An account of a client, as read from the database.

    Attributes:
        id: public identifier of the account in lists, logs and bills.
        image_nano: price of one image in billionths of `currency`.
        text_nano: price of one text in billionths of `currency`.
        quota_nano: maximum total spending in billionths of `currency`; None for no limit.
        requests_per_minute: rate limit; None for no limit.
        revoked: time at which the key was revoked; None if it is valid.
        spent_nano: total amount billed, in billionths of `currency`.
        expires: time at which the key expires; None for never.
        old_until: time until which the key before the last rotation works; None without a rotation.
    """

    id: str
    name: str
    image_nano: int
    text_nano: int
    currency: str
    quota_nano: int | None
    requests_per_minute: int | None
    created: datetime
    revoked: datetime | None
    spent_nano: int
    images: int
    texts: int
    requests: int
    expires: datetime | None
    old_until: datetime | None

    def cost(self, images: int, texts: int) -> int:
        """Return the price of a number of images and texts, in billionths of `currency`."""
        return images * self.image_nano + texts * self.text_nano


class Accounts:
    """The accounts in the database.

    Args:
        clock: returns the time in seconds since 1970.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock

    def create(
        self,
        name: str,
        price: Price,
        *,
        quota: str | None = None,
        requests_per_minute: int | None = None,
        expires: datetime | None = None,
    ) -> tuple[Account, str]:
        """Create an account and its key, which cannot be shown again.

        Args:
            name: name of the account, 1 to 200 characters.
            price: price per 1000 images and texts, with at most 6 decimals each.
            quota: maximum total spending in `price.currency`; None for no limit.
            requests_per_minute: rate limit; None for no limit.
            expires: time at which the key expires; None for never.

        Raises:
            ConfigError: if a value is invalid.
        """
        if not re.fullmatch(r"[A-Z]{3,8}", price.currency):
            raise ConfigError(
                "The currency is unknown.", expected="e.g. USD or EUR", found=price.currency[:20], next_step=CORRECT
            )
        identity = secrets.token_hex(8)
        key = new_key(identity)
        row = {
            "id": identity,
            "name": _checked_name(name),
            "digest": digest(key),
            "image_nano": to_nano(price.per_1000_images / 1000, "The price per 1000 images"),
            "text_nano": to_nano(price.per_1000_texts / 1000, "The price per 1000 texts"),
            "currency": price.currency,
            "quota_nano": None if quota is None else to_nano(quota, "The quota"),
            "requests_per_minute": None if requests_per_minute is None else _checked_rate(requests_per_minute),
            "created": self._clock(),
            "expires": None if expires is None else self._checked_expiry(expires),
        }
        with self._engine.begin() as connection:
            connection.execute(insert(accounts).values(row))
        return self.get(identity), key

    def edit(
        self,
        identity: str,
        *,
        name: str | None = None,
        price_per_1000_images: Decimal | None = None,
        price_per_1000_texts: Decimal | None = None,
        quota: str | None = None,
        requests_per_minute: int | None = None,
        expires: datetime | Literal["never"] | None = None,
    ) -> Account:
        """Change an account; None leaves a value unchanged. A running server applies it from the next request on.

        Args:
            price_per_1000_images: new price of images, in the currency of the account.
            price_per_1000_texts: new price of texts, in the currency of the account.
            quota: new maximum total spending, including the amount spent so far; ``none`` for no limit.
            requests_per_minute: new rate limit; 0 for no limit.
            expires: new time at which the key expires, or ``never``.

        Raises:
            ConfigError: if the account is unknown or a value is invalid; nothing changes then.
        """
        self.get(identity)
        row: dict[str, Any] = {}
        if name is not None:
            row["name"] = _checked_name(name)
        if price_per_1000_images is not None:
            row["image_nano"] = to_nano(price_per_1000_images / 1000, "The price per 1000 images")
        if price_per_1000_texts is not None:
            row["text_nano"] = to_nano(price_per_1000_texts / 1000, "The price per 1000 texts")
        if quota is not None:
            row["quota_nano"] = None if quota == "none" else to_nano(quota, "The quota")
        if requests_per_minute is not None:
            row["requests_per_minute"] = _checked_rate(requests_per_minute) if requests_per_minute else None
        if expires is not None:
            row["expires"] = None if expires == "never" else self._checked_expiry(expires)
        return self._update(identity, row)

    def rotate(self, identity: str, grace_seconds: float) -> tuple[Account, str]:
        """Create a new key for an account. The current key works for a grace period; earlier keys stop at once.

        Args:
            grace_seconds: seconds for which the current key still works.

        Returns:
            (account, new key). The key cannot be shown again.

        Raises:
            ConfigError: if the account is unknown or revoked.
        """
        if self.get(identity).revoked is not None:
            step = "open a new account: vl2v vendor keys create"
            raise ConfigError("The account is closed.", expected="an open one", found="revoked", next_step=step)
        key = new_key(identity)
        row = {"digest": digest(key), "old_digest": accounts.c.digest, "old_until": self._clock() + grace_seconds}
        return self._update(identity, row), key

    def _update(self, identity: str, row: dict[str, Any]) -> Account:
        if row:
            with self._engine.begin() as connection:
                connection.execute(update(accounts).where(accounts.c.id == identity).values(row))
        return self.get(identity)

    def _checked_expiry(self, expires: datetime) -> float:
        found = expires.isoformat(timespec="minutes")
        if expires.timestamp() > LATEST:
            step = "omit it for a key that never expires; of an account that exists: --expires never"
            raise ConfigError("The expiry time is too late.", expected="a year to 9998", found=found, next_step=step)
        if expires.timestamp() <= self._clock():
            step = "choose a later time; to close an account now: vl2v vendor keys revoke"
            raise ConfigError(
                "A key cannot expire in the past.", expected="a time in the future", found=found, next_step=step
            )
        return expires.timestamp()

    def get(self, identity: str) -> Account:
        """Return the account with an id.

        Raises:
            ConfigError: if the account is unknown.
        """
        row = self._row(identity)
        if row is None:
            raise ConfigError(
                "Unknown account.",
                expected="an id from: vl2v vendor keys list",
                found="no such id",
                next_step="use the id, not the key",
            )
        return _account(row)

    def all(self) -> list[Account]:
        """Return all accounts, oldest first."""
        with self._engine.connect() as connection:
            return [_account(row) for row in connection.execute(select(accounts).order_by(accounts.c.created))]

    def revoke(self, identity: str) -> Account:
        """Revoke the key of an account. Revoking it again changes nothing.

        Raises:
            ConfigError: if the account is unknown.
        """
        return self._update(identity, {} if self.get(identity).revoked else {"revoked": self._clock()})

    def find(self, key: str) -> Account | KeyFault:
        """Return the account of a key, or the reason why the key is invalid.

        The row is selected by the public part of the key. See `fault_of_key`.
        """
        identity = account_id(key)
        if identity is None:
            return KeyFault.UNKNOWN
        row = self._row(identity)
        reason = fault_of_key(key, row, self._clock())  # also without a row, as it takes the same time
        return KeyFault.UNKNOWN if row is None else reason or _account(row)

    def _row(self, identity: str) -> Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(select(accounts).where(accounts.c.id == identity)).one_or_none()


def _checked_name(name: str) -> str:
    if not 1 <= len(name) <= 200 or not name.strip() or has_control(name):
        found = f"{len(name)} characters" if len(name) > 200 else repr(name)
        expected = "1 to 200 characters, not all blank, none of them a control character"
        raise ConfigError(
            "This name is not valid for an account.", expected=expected, found=found, next_step="choose another name"
        )
    return name


def _checked_rate(requests_per_minute: int) -> int:
    if not 1 <= requests_per_minute < 2**31:
        expected, found = f"1 to {2**31 - 1:,} requests a minute", str(requests_per_minute)[:40]
        raise ConfigError("The rate limit is not valid.", expected=expected, found=found, next_step=CORRECT)
    return requests_per_minute


def _account(row: Row[Any]) -> Account:
    values = dict(row._mapping)
    del values["digest"], values["old_digest"]
    for name in ("created", "revoked", "expires", "old_until"):
        values[name] = None if values[name] is None else datetime.fromtimestamp(min(values[name], LATEST), UTC)
    return Account(**values)
