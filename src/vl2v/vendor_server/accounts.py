"""Accounts and their keys. A key is shown once; the database stores its digest."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from sqlalchemy import Engine, Row, insert, select, update

from vl2v.errors import ConfigError
from vl2v.teacher.base import Price
from vl2v.vendor_server.database import accounts
from vl2v.vendor_server.money import from_nano, to_nano
from vl2v_runtime.names import has_control

LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()  # seconds; with every offset still a date
CORRECT = "correct the option"
KEY = re.compile(r"vl2v-([0-9a-f]{16})-[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Account:
    """One client, as it stood when it was read.

    Attributes:
        id: public; names the account in lists, logs and bills.
        name: what the seller calls it.
        image_nano: price of one image in billionths of `currency`.
        text_nano: price of one text.
        currency: e.g. USD.
        quota_nano: the most it may spend in all; None for no bound.
        requests_per_minute: None for no bound.
        created: when.
        revoked: since when its key opens nothing; None if it does.
        spent_nano: billed so far.
        images: billed so far.
        texts: billed so far.
        requests: answered and billed so far.
        expires: from when its key opens nothing; None for never.
        old_until: until when the key before the last rotation works; None if there was none.
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
        """The price of so many queries, in billionths."""
        return images * self.image_nano + texts * self.text_nano

    @property
    def price(self) -> Price:
        """The account's price list."""
        return Price(from_nano(self.image_nano * 1000), from_nano(self.text_nano * 1000), self.currency)


class Locked(StrEnum):
    """Why a key opens nothing. All but the first are told only to one who has the whole key."""

    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REPLACED = "replaced by a new one"


class Accounts:
    """The accounts in the books.

    Args:
        engine: the books.
        clock: seconds since 1970.
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
        """Open an account.

        Args:
            name: what to call it, 1 to 200 characters.
            price: of 1000 images and texts; at most 6 decimals each.
            quota: the most it may spend in all, in `price.currency`.
            requests_per_minute: its rate.
            expires: when its key stops working; None for never.

        Returns:
            (account, key); the key cannot be had again.

        Raises:
            ConfigError: if a value is not usable.
        """
        if not re.fullmatch(r"[A-Z]{3,8}", price.currency):
            raise ConfigError(
                "The currency is unknown.", expected="e.g. USD or EUR", found=price.currency[:20], next_step=CORRECT
            )
        identity = secrets.token_hex(8)
        key = _new_key(identity)
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
        with self._engine.begin() as books:
            books.execute(insert(accounts).values(row))
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
        """Change an account; what is None stays. A running server follows from the next request on.

        Args:
            identity: its id.
            name: what to call it.
            price_per_1000_images: the new price, in the account's currency.
            price_per_1000_texts: the same for texts.
            quota: the most it may spend in all, what it has spent included; ``none`` for no bound.
            requests_per_minute: its rate; 0 for no bound.
            expires: when its key stops working.

        Raises:
            ConfigError: if there is no such account, or a value is not usable; nothing is changed then.
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
        if row:
            self._update(identity, row)
        return self.get(identity)

    def rotate(self, identity: str, grace_seconds: float) -> tuple[Account, str]:
        """Give an account a new key. The present one works on for a while; one before it stops now.

        Args:
            identity: the account's id.
            grace_seconds: how long the present key still works.

        Returns:
            (account, new key); the key cannot be had again.

        Raises:
            ConfigError: if there is no such account, or it is revoked.
        """
        if self.get(identity).revoked is not None:
            step = "open a new account: vl2v vendor keys create"
            raise ConfigError("The account is closed.", expected="an open one", found="revoked", next_step=step)
        key = _new_key(identity)
        row = {"digest": digest(key), "old_digest": accounts.c.digest, "old_until": self._clock() + grace_seconds}
        self._update(identity, row)
        return self.get(identity), key

    def _update(self, identity: str, row: dict[str, Any]) -> None:
        with self._engine.begin() as books:
            books.execute(update(accounts).where(accounts.c.id == identity).values(row))

    def _checked_expiry(self, expires: datetime) -> float:
        if expires.timestamp() > LATEST:
            found = expires.isoformat(timespec="minutes")
            step = "omit it for a key that never expires; of an account that exists: --expires never"
            raise ConfigError("The expiry time is too late.", expected="a year to 9998", found=found, next_step=step)
        if expires.timestamp() <= self._clock():
            step = "choose a later time; to close an account now: vl2v vendor keys revoke"
            found = expires.isoformat(timespec="minutes")
            raise ConfigError(
                "A key cannot expire in the past.", expected="a time in the future", found=found, next_step=step
            )
        return expires.timestamp()

    def get(self, identity: str) -> Account:
        """The account of that id.

        Raises:
            ConfigError: if there is none.
        """
        with self._engine.connect() as books:
            row = books.execute(select(accounts).where(accounts.c.id == identity)).one_or_none()
        if row is None:
            raise ConfigError(
                "Unknown account.",
                expected="an id from: vl2v vendor keys list",
                found="no such id",
                next_step="use the id, not the key",
            )
        return _account(row)

    def all(self) -> list[Account]:
        """Every account, oldest first."""
        with self._engine.connect() as books:
            return [_account(row) for row in books.execute(select(accounts).order_by(accounts.c.created))]

    def revoke(self, identity: str) -> Account:
        """Close an account: its key opens nothing from now on. Closing twice changes nothing.

        Raises:
            ConfigError: if there is no such account.
        """
        self.get(identity)
        with self._engine.begin() as books:
            open_one = (accounts.c.id == identity) & accounts.c.revoked.is_(None)
            books.execute(update(accounts).where(open_one).values(revoked=self._clock()))
        return self.get(identity)

    def find(self, key: str) -> Account | Locked:
        """The account that a key opens, or why it opens none.

        The row is found by the public part of the key; digests of the whole are compared in constant time.
        """
        match = KEY.fullmatch(key)
        if match is None:
            return Locked.UNKNOWN
        with self._engine.connect() as books:
            row = books.execute(select(accounts).where(accounts.c.id == match[1])).one_or_none()
        nothing, given = digest("no such account"), digest(key)
        is_key = hmac.compare_digest(row.digest if row is not None else nothing, given)
        was_key = hmac.compare_digest((row.old_digest if row is not None else None) or nothing, given)
        if row is None or not (is_key or was_key):
            return Locked.UNKNOWN
        if row.revoked is not None:
            return Locked.REVOKED
        if row.expires is not None and row.expires <= self._clock():
            return Locked.EXPIRED
        if not is_key and row.old_until <= self._clock():
            return Locked.REPLACED
        return _account(row)


def _new_key(identity: str) -> str:
    return f"vl2v-{identity}-{secrets.token_urlsafe(32)}"


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


def digest(key: str) -> str:
    """SHA-256 of a key, hexadecimal.

    A slow password hash would buy nothing: a key has 256 random bits, so there is no list of likely keys to try, and
    every request would pay for the slowness.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def _account(row: Row[Any]) -> Account:
    values = dict(row._mapping)
    del values["digest"], values["old_digest"]
    for name in ("created", "revoked", "expires", "old_until"):
        values[name] = None if values[name] is None else datetime.fromtimestamp(min(values[name], LATEST), UTC)
    return Account(**values)
