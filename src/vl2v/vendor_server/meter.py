"""Billing: answered requests are billed once, failed ones are not, and quotas are never exceeded.

`Service` runs every method in one thread, so that reading the amount spent, checking it and reserving is one step.
Several services with one database also bill exactly: the quota is checked again in the transaction that bills, and an
idempotency key can be saved only once. They may, however, do the same work twice.
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
class IdempotencyKey:
    """The idempotency key of a request, which is billed only once.

    Attributes:
        key: hash of the `Idempotency-Key` and the revision of the model, so that a response of another model is never
            repeated.
        digest: SHA-256 of the request body, in hexadecimal.
    """

    key: str
    digest: str

    @classmethod
    def of(cls, key: str, body: bytes, revision: str = "") -> IdempotencyKey:
        """Create it from the header, the request body and the revision of the model."""
        return cls(hashlib.sha256(f"{revision}\0{key}".encode()).hexdigest(), hashlib.sha256(body).hexdigest())

    def check_body(self, other_digest: str) -> None:
        """Check that the key was not used for another body.

        Raises:
            ApiError: 422 if it was.
        """
        if other_digest != self.digest:
            message = "This Idempotency-Key belongs to another request body; use a new key for a new request."
            raise schema(message, "Idempotency-Key", "idempotency_key_reused")


@dataclass(frozen=True)
class Reservation:
    """The reserved cost of a request in flight.

    Attributes:
        request: id of the request, which becomes the id of the bill.
        cost_nano: cost in billionths of the account's currency.
        idempotency: the idempotency key; None if the response is not saved.
    """

    account: Account
    request: str
    images: int
    texts: int
    cost_nano: int
    idempotency: IdempotencyKey | None


class Meter:
    """Reserves and bills costs, and saves responses for repeated requests.

    Args:
        keep_seconds: seconds for which a response is saved for its idempotency key.
        clock: returns the time in seconds since 1970.
    """

    def __init__(self, engine: Engine, keep_seconds: float = 86400, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._keep, self._clock = engine, keep_seconds, clock
        self._reserved: Counter[str] = Counter()

    def admit(
        self, account: Account, request: str, images: int, texts: int, idempotency: IdempotencyKey | None
    ) -> Reservation | bytes:
        """Return the saved body of the response to an earlier request with the same key, or reserve the cost.

        Raises:
            ApiError: 402 if the quota is too small; 422 if the idempotency key belongs to another body.
        """
        with self._engine.connect() as connection:
            response = self._find(connection, account, idempotency)
            if response is not None:
                return response
            row = connection.execute(
                select(accounts.c.spent_nano, accounts.c.quota_nano).where(accounts.c.id == account.id)
            ).one()
        cost = account.cost(images, texts)
        reserved = self._reserved[account.id]
        if row.quota_nano is not None and row.spent_nano + reserved + cost > row.quota_nano:
            raise over_quota(account, cost, row.quota_nano - row.spent_nano - reserved)
        self._reserved[account.id] += cost
        return Reservation(account, request, images, texts, cost, idempotency)

    def settle(self, reservation: Reservation, body: bytes) -> bytes:
        """Bill a response and save it in one transaction, before it is sent.

        Returns:
            The body to send: `body`, or the one that another service has saved for the same key in the meantime.

        Raises:
            ApiError: 402 if another service has spent the quota in the meantime; nothing is billed then.
        """
        try:
            with self._engine.begin() as connection:
                self._keep_answer(connection, reservation, body)
                self._bill(connection, reservation)
        except IntegrityError:
            with self._engine.connect() as connection:
                response = self._find(connection, reservation.account, reservation.idempotency)
            if response is None:
                raise
            return response
        finally:
            self.release(reservation)
        return body

    def release(self, reservation: Reservation) -> None:
        """Release a reservation; called by `settle`, or if the request failed."""
        self._reserved[reservation.account.id] -= reservation.cost_nano
        if not self._reserved[reservation.account.id]:
            del self._reserved[reservation.account.id]

    def purge(self) -> int:
        """Delete expired responses and return their number; their bills remain."""
        with self._engine.begin() as connection:
            return connection.execute(delete(answers).where(answers.c.expires <= self._clock())).rowcount

    def _find(self, connection: Connection, account: Account, idempotency: IdempotencyKey | None) -> bytes | None:
        if idempotency is None:
            return None
        mine = (
            (answers.c.account == account.id) & (answers.c.key == idempotency.key) & (answers.c.expires > self._clock())
        )
        row = connection.execute(select(answers).where(mine)).one_or_none()
        if row is None:
            return None
        idempotency.check_body(row.request_digest)
        body: bytes = row.body
        return body

    def _keep_answer(self, connection: Connection, reservation: Reservation, body: bytes) -> None:
        if reservation.idempotency is None:
            return
        account, idempotency, now = reservation.account.id, reservation.idempotency, self._clock()
        mine = (answers.c.account == account) & (answers.c.key == idempotency.key)
        connection.execute(delete(answers).where(mine & (answers.c.expires <= now)))
        row = {"account": account, "key": idempotency.key, "request_digest": idempotency.digest, "body": body}
        connection.execute(insert(answers).values(row | {"expires": now + self._keep}))

    def _bill(self, connection: Connection, reservation: Reservation) -> None:
        account, columns = reservation.account, accounts.c
        quota_allows = columns.quota_nano.is_(None) | (columns.spent_nano + reservation.cost_nano <= columns.quota_nano)
        billed = connection.execute(
            update(accounts)
            .where((columns.id == account.id) & quota_allows)
            .values(
                spent_nano=columns.spent_nano + reservation.cost_nano,
                images=columns.images + reservation.images,
                texts=columns.texts + reservation.texts,
                requests=columns.requests + 1,
            )
        )
        if billed.rowcount != 1:
            raise over_quota(account, reservation.cost_nano, 0)
        bill = {"id": reservation.request, "account": account.id, "time": self._clock()}
        counts = {"images": reservation.images, "texts": reservation.texts, "cost_nano": reservation.cost_nano}
        connection.execute(insert(bills).values(bill | counts))


def over_quota(account: Account, cost: int, remainder: int) -> ApiError:
    """Return the final error 402 for a quota that is too small."""
    money = account.currency
    message = (
        f"This request costs {written(cost)} {money}; {written(max(remainder, 0))} {money} of the quota are left. "
        f"Nothing was processed or billed. Send less, or ask the vendor to raise the quota of account {account.id}."
    )
    return ApiError(402, "insufficient_quota", message)
