"""The interface of remote teachers: requests, their execution, and an account of every attempt."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

from vl2v.teacher.base import Teacher, Vectors
from vl2v.teacher.http.packing import Limits

Kind = Literal["image", "text"]


@dataclass(frozen=True)
class Order:
    """One request, ready to be sent any number of times with the very same bytes.

    Attributes:
        kind: what is asked about.
        count: N, how many inputs.
        body: the request's body.
        content_type: of the body.
        cost: the most that one answer to it may cost, in the teacher's currency; reserved before it is sent.
        key: derived from the body, so the same batch has the same key in every process and after every restart.
    """

    kind: Kind
    count: int
    body: bytes
    content_type: str
    cost: Decimal
    key: str


@dataclass(frozen=True)
class Origin:
    """Which model an answer says it comes from; None where it says nothing.

    Attributes:
        model: the model's name, which need not be the one that was asked for.
        revision: its version.
        logit_scale: s in ``s * cos(image, text)``.
    """

    model: str | None = None
    revision: str | None = None
    logit_scale: float | None = None


@dataclass(frozen=True)
class Answer:
    """What came back for an order.

    Attributes:
        vectors: [N, D] float32, checked, row i for input i.
        cost: what the vendor says it charged; None if it says nothing, and the order's cost is then what counts.
        origin: which model the answer says it comes from.
    """

    vectors: Vectors
    cost: Decimal | None = None
    origin: Origin = Origin()


class Account(Protocol):
    """Where the attempts at one order are booked. Called from the thread that sends."""

    def sending(self) -> None:
        """An attempt is about to be sent.

        Raises:
            BudgetError: if it could cost more than is left; nothing is sent then.
        """
        ...

    def refused(self, why: str) -> None:
        """The attempt failed, and it is certain that it was not charged."""
        ...

    def lost(self, why: str) -> None:
        """The attempt failed, and it may have been charged."""
        ...

    def wasted(self, why: str, cost: Decimal | None) -> None:
        """The attempt was charged, at `cost` if the vendor says so, and no repetition of it can be used."""
        ...


class NoAccount:
    """Books nothing: for what is free, and for callers who keep no ledger."""

    def sending(self) -> None:
        """See `Account.sending`."""

    def refused(self, why: str) -> None:
        """See `Account.refused`."""

    def lost(self, why: str) -> None:
        """See `Account.lost`."""

    def wasted(self, why: str, cost: Decimal | None) -> None:
        """See `Account.wasted`."""


class AbandonedError(Exception):
    """An order was given up between two attempts because the whole purchase is being stopped."""


@runtime_checkable
class RemoteTeacher(Teacher, Protocol):
    """A teacher that is asked by requests, several at a time.

    Attributes:
        limits: what one request may hold, and how many may be under way.
        idempotent: whether the vendor promises to charge one key once, however often it is sent.
    """

    limits: Limits
    idempotent: bool

    def fit(self, image: bytes) -> bytes:
        """An image's bytes as this vendor takes them: unchanged unless one of its limits forbids that."""
        ...

    def order(self, kind: Kind, items: Sequence[bytes] | Sequence[str], salt: str = "") -> Order:
        """Write the request for a batch; another `salt` makes another key, so that the answer is worked out anew."""
        ...

    def fulfil(self, order: Order, account: Account, stop: threading.Event | None = None) -> Answer:
        """Send until there is a usable answer.

        Raises:
            TeacherError: if the vendor refuses for good, or patience is at its end.
            BudgetError: if another attempt does not fit the budget.
            AbandonedError: if `stop` was set before the next attempt.
        """
        ...
