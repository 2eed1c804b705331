"""Accounts and their keys. A key is shown once; the books keep its digest."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Row, insert, select, update

from vl2v.errors import ConfigError
from vl2v.teacher.base import Price
from vl2v.vendor.database import accounts
from vl2v.vendor.money import from_nano, to_nano

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

    def cost(self, images: int, texts: int) -> int:
        """The price of so many queries, in billionths."""
        return images * self.image_nano + texts * self.text_nano

    @property
    def price(self) -> Price:
        """The account's price list."""
        return Price(from_nano(self.image_nano * 1000), from_nano(self.text_nano * 1000), self.currency)


class Accounts:
    """The accounts in the books.

    Args:
        engine: the books.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, name: str, price: Price, *, quota: str | None = None, requests_per_minute: int | None = None
    ) -> tuple[Account, str]:
        """Open an account.

        Args:
            name: what to call it, 1 to 200 characters.
            price: of 1000 images and texts; at most 6 decimals each.
            quota: the most it may spend in all, in `price.currency`.
            requests_per_minute: its rate.

        Returns:
            (account, key); the key cannot be had again.

        Raises:
            ConfigError: if a value is not usable.
        """
        if not 1 <= len(name) <= 200 or (requests_per_minute is not None and requests_per_minute < 1):
            expected = "a name of 1 to 200 characters, and a rate of 1 or more"
            raise ConfigError("No such account can be opened.", expected=expected, found="another value")
        if not re.fullmatch(r"[A-Z]{3,8}", price.currency):
            raise ConfigError("The currency is unknown.", expected="e.g. USD or EUR", found=price.currency[:20])
        identity = secrets.token_hex(8)
        key = f"vl2v-{identity}-{secrets.token_urlsafe(32)}"
        row = {
            "id": identity,
            "name": name,
            "digest": digest(key),
            "image_nano": to_nano(price.per_1000_images / 1000, "The price per 1000 images"),
            "text_nano": to_nano(price.per_1000_texts / 1000, "The price per 1000 texts"),
            "currency": price.currency,
            "quota_nano": None if quota is None else to_nano(quota, "The quota"),
            "requests_per_minute": requests_per_minute,
            "created": time.time(),
        }
        with self._engine.begin() as books:
            books.execute(insert(accounts).values(row))
        return self.get(identity), key

    def get(self, identity: str) -> Account:
        """The account of that id.

        Raises:
            ConfigError: if there is none.
        """
        with self._engine.connect() as books:
            row = books.execute(select(accounts).where(accounts.c.id == identity)).one_or_none()
        if row is None:
            raise ConfigError(
                "There is no such account.",
                expected="an id from: vl2v vendor keys list",
                found="another one",
                next_step="give the id, not the key",
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
            books.execute(update(accounts).where(open_one).values(revoked=time.time()))
        return self.get(identity)

    def find(self, key: str) -> Account | None:
        """The open account that a key belongs to, or None.

        The row is found by the public part of the key; the digest of the whole is compared in constant time.
        """
        match = KEY.fullmatch(key)
        if match is None:
            return None
        with self._engine.connect() as books:
            row = books.execute(select(accounts).where(accounts.c.id == match[1])).one_or_none()
        known = row.digest if row is not None else digest("no such account")
        same = hmac.compare_digest(known, digest(key))
        return _account(row) if row is not None and same and row.revoked is None else None


def digest(key: str) -> str:
    """SHA-256 of a key, hexadecimal.

    A slow password hash would buy nothing: a key has 256 random bits, so there is no list of likely keys to try, and
    every request would pay for the slowness.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def _account(row: Row[Any]) -> Account:
    values = dict(row._mapping)
    del values["digest"]
    values["created"] = datetime.fromtimestamp(row.created, UTC)
    values["revoked"] = None if row.revoked is None else datetime.fromtimestamp(row.revoked, UTC)
    return Account(**values)
