"""Billing: answered requests are billed once, failed ones are not, and quotas are never exceeded.

Every method runs in one thread of the service (`Service` sees to it), so that reading what was spent, checking and
reserving is one step. Several services over one database still bill exactly, since the quota is checked again in the
transaction that bills and an idempotency key can be kept once; they may then do the same work twice.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from vl2v.vendor_server.accounts import Account
from vl2v.vendor_server.database import accounts, answers, bills
from vl2v.vendor_server.money import written
from vl2v.web.faults import ApiError, schema


@dataclass(frozen=True)
class Once:
    """A client's wish that a request be done once.

    Attributes:
        key: its `Idempotency-Key` and the model's revision, hashed: another model's answer is never repeated.
        digest: SHA-256 of the request's body, hexadecimal.
    """

    key: str
    digest: str

    @classmethod
    def of(cls, key: str, body: bytes, revision: str = "") -> Once:
        """The wish for this body, of a model's revision."""
        return cls(hashlib.sha256(f"{revision}\0{key}".encode()).hexdigest(), hashlib.sha256(body).hexdigest())

    def same(self, other_digest: str) -> None:
        """Refuse a key that was used for another body.

        Raises:
            ApiError: 422.
        """
        if other_digest != self.digest:
            message = "This Idempotency-Key belongs to another request body; use a new key for a new request."
            raise schema(message, "Idempotency-Key", "idempotency_key_reused")


@dataclass(frozen=True)
class Reservation:
    """Money set aside for a request that is being worked on.

    Attributes:
        account: whose.
        request: the request's id; it becomes the bill's.
        images: how many.
        texts: how many.
        cost_nano: in billionths of the account's currency.
        once: set if the answer is to be kept for a repetition.
    """

    account: Account
    request: str
    images: int
    texts: int
    cost_nano: int
    once: Once | None


@dataclass(frozen=True)
class Kept:
    """The body of an answer that was given, and billed, before."""

    body: bytes


class Meter:
    """Reserves, bills, and keeps answers for repeated requests.

    Args:
        engine: the books.
        keep_seconds: how long an answer is kept for its idempotency key.
        clock: seconds since 1970.
    """

    def __init__(self, engine: Engine, keep_seconds: float = 86400, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._keep, self._clock = engine, keep_seconds, clock
        self._reserved: Counter[str] = Counter()

    def admit(self, account: Account, request: str, images: int, texts: int, once: Once | None) -> Reservation | Kept:
        """Find the answer that was given before, or set money aside for the work.

        Raises:
            ApiError: 402 if the quota does not allow it; 422 if the idempotency key belongs to another body.
        """
        with self._engine.connect() as books:
            kept = self._find(books, account, once)
            if kept is not None:
                return kept
            row = books.execute(
                select(accounts.c.spent_nano, accounts.c.quota_nano).where(accounts.c.id == account.id)
            ).one()
        cost = account.cost(images, texts)
        held = self._reserved[account.id]
        if row.quota_nano is not None and row.spent_nano + held + cost > row.quota_nano:
            raise over_quota(account, cost, row.quota_nano - row.spent_nano - held)
        self._reserved[account.id] += cost
        return Reservation(account, request, images, texts, cost, once)

    def settle(self, held: Reservation, body: bytes) -> bytes:
        """Bill an answer and keep it, in one transaction, before it is sent.

        Returns:
            The body to send: `body`, or the one that another service kept for the same key meanwhile.

        Raises:
            ApiError: 402 if another service spent the quota meanwhile; nothing is billed then.
        """
        try:
            with self._engine.begin() as books:
                self._keep_answer(books, held, body)
                self._bill(books, held)
        except IntegrityError:
            with self._engine.connect() as books:
                kept = self._find(books, held.account, held.once)
            if kept is None:
                raise
            return kept.body
        finally:
            self.release(held)
        return body

    def release(self, held: Reservation) -> None:
        """Give back what was set aside; called by `settle`, or when the work failed."""
        self._reserved[held.account.id] -= held.cost_nano
        if not self._reserved[held.account.id]:
            del self._reserved[held.account.id]

    def purge(self) -> int:
        """Forget answers whose time is over; returns how many. Their bills stay."""
        with self._engine.begin() as books:
            return books.execute(delete(answers).where(answers.c.expires <= self._clock())).rowcount

    def _find(self, books: Connection, account: Account, once: Once | None) -> Kept | None:
        if once is None:
            return None
        mine = (answers.c.account == account.id) & (answers.c.key == once.key) & (answers.c.expires > self._clock())
        row = books.execute(select(answers).where(mine)).one_or_none()
        if row is None:
            return None
        once.same(row.request_digest)
        return Kept(row.body)

    def _keep_answer(self, books: Connection, held: Reservation, body: bytes) -> None:
        if held.once is None:
            return
        mine = (answers.c.account == held.account.id) & (answers.c.key == held.once.key)
        books.execute(delete(answers).where(mine & (answers.c.expires <= self._clock())))
        row = {"account": held.account.id, "key": held.once.key, "request_digest": held.once.digest}
        books.execute(insert(answers).values(row | {"body": body, "expires": self._clock() + self._keep}))

    def _bill(self, books: Connection, held: Reservation) -> None:
        account, columns = held.account, accounts.c
        quota_allows = columns.quota_nano.is_(None) | (columns.spent_nano + held.cost_nano <= columns.quota_nano)
        billed = books.execute(
            update(accounts)
            .where((columns.id == account.id) & quota_allows)
            .values(
                spent_nano=columns.spent_nano + held.cost_nano,
                images=columns.images + held.images,
                texts=columns.texts + held.texts,
                requests=columns.requests + 1,
            )
        )
        if billed.rowcount != 1:
            raise over_quota(account, held.cost_nano, 0)
        bill = {"id": held.request, "account": account.id, "time": self._clock()}
        counts = {"images": held.images, "texts": held.texts, "cost_nano": held.cost_nano}
        books.execute(insert(bills).values(bill | counts))


def over_quota(account: Account, cost: int, left: int) -> ApiError:
    """402, final: no repetition helps until the seller raises the quota."""
    money = account.currency
    message = (
        f"This request costs {written(cost)} {money}; {written(max(left, 0))} {money} of the quota are left. "
        f"Nothing was processed or billed. Send less, or ask the vendor to raise the quota of account {account.id}."
    )
    return ApiError(402, "insufficient_quota", message)
