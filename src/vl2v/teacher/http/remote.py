"""The interface of remote teachers: requests, their execution, and a record of every attempt."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

from vl2v.errors import TeacherError
from vl2v.teacher.base import Teacher, Vectors
from vl2v.teacher.http.packing import Limits

Kind = Literal["image", "text"]


@dataclass(frozen=True)
class Order:
    """A request that can be sent any number of times with the same bytes.

    Attributes:
        count: N, the number of inputs.
        cost: maximum cost in the teacher's currency, which is reserved before the request is sent.
        key: idempotency key. It is derived from the body, so a batch has the same key in every process.
    """

    kind: Kind
    count: int
    body: bytes
    content_type: str
    cost: Decimal
    key: str


@dataclass(frozen=True)
class Origin:
    """The model that a response states as its origin; None for what it does not state.

    Attributes:
        model: name of the model, which may differ from the requested one.
        logit_scale: s in ``s * cos(image, text)``.
    """

    model: str | None = None
    revision: str | None = None
    logit_scale: float | None = None


@dataclass(frozen=True)
class Answer:
    """A validated response to an order.

    Attributes:
        vectors: [N, D] float32 embeddings, row i for input i.
        cost: cost stated by the vendor; None if it states none, and then the cost of the order counts.
        origin: the model that the response states as its origin.
    """

    vectors: Vectors
    cost: Decimal | None = None
    origin: Origin = Origin()


class Account(Protocol):
    """Records the attempts at one order. The sending thread calls it."""

    def sending(self) -> None:
        """Record that an attempt is about to be sent.

        Raises:
            BudgetError: if its maximum cost exceeds the remaining budget; nothing is sent then.
        """
        ...

    def refused(self, why: str) -> None:
        """Record that an attempt failed and was certainly not charged."""
        ...

    def lost(self, why: str) -> None:
        """Record that an attempt failed and may have been charged."""
        ...

    def wasted(self, why: str, cost: Decimal | None) -> None:
        """Record that an attempt was charged, at `cost` if the vendor states it, and that repeating it is useless."""
        ...


class NoAccount:
    """An account that records nothing, for free requests and for callers without a ledger."""

    def sending(self) -> None:
        """See `Account.sending`."""

    def refused(self, why: str) -> None:
        """See `Account.refused`."""

    def lost(self, why: str) -> None:
        """See `Account.lost`."""

    def wasted(self, why: str, cost: Decimal | None) -> None:
        """See `Account.wasted`."""


class RejectedInputError(TeacherError):
    """The vendor rejected a request because of its inputs, and charged nothing. A part of them may be acceptable."""


class AbandonedError(Exception):
    """An order was abandoned between two attempts because the whole purchase is being stopped."""


def resumable(teacher: object) -> bool:
    """Whether requests that an earlier process sent without receiving a response cost nothing more."""
    return bool(getattr(teacher, "idempotent", False) or getattr(teacher, "jobs", None))


@runtime_checkable
class RemoteTeacher(Teacher, Protocol):
    """A teacher that is queried by concurrent requests.

    Attributes:
        limits: limits on the size, the rate and the concurrency of requests.
        idempotent: whether the vendor charges an idempotency key only once, however often it is sent.
    """

    limits: Limits
    idempotent: bool

    def fit(self, image: bytes) -> bytes:
        """Return the bytes to send for an image: unchanged, unless they exceed a limit of the vendor."""
        ...

    def order(self, kind: Kind, items: Sequence[bytes] | Sequence[str], salt: str = "") -> Order:
        """Build the request for a batch.

        Args:
            items: image files as bytes, or texts.
            salt: a different salt gives a different key, so that the vendor computes the response again.
        """
        ...

    def fulfil(self, order: Order, account: Account, stop: threading.Event | None = None) -> Answer:
        """Send an order, with retries, until there is a usable response.

        Raises:
            RejectedInputError: if the vendor rejects the inputs.
            TeacherError: if the vendor rejects the request for another reason, or all attempts fail.
            BudgetError: if the budget does not cover another attempt.
            AbandonedError: if `stop` is set before the next attempt.
        """
        ...
