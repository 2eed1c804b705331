"""Requests to a remote teacher, their responses, and the record of every attempt."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from vl2v.errors import TeacherError
from vl2v.teacher.base import Embeddings

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
        embeddings: [N, D] float32 embeddings, row i for input i.
        cost: cost stated by the vendor; None if it states none, and then the cost of the order counts.
        origin: the model that the response states as its origin.
    """

    embeddings: Embeddings
    cost: Decimal | None = None
    origin: Origin = Origin()


class Account:
    """Records the attempts at one order; the sending thread calls it.

    This one records nothing, for free requests and for callers without a ledger.
    """

    def sending(self) -> None:
        """Record that an attempt is about to be sent.

        Raises:
            BudgetError: if its maximum cost exceeds the remaining budget; nothing is sent then.
        """

    def refused(self, why: str) -> None:
        """Record that an attempt failed and was certainly not charged."""

    def lost(self, why: str) -> None:
        """Record that an attempt failed and may have been charged."""

    def wasted(self, why: str, cost: Decimal | None) -> None:
        """Record that an attempt was charged, at `cost` if the vendor states it, and that repeating it is useless."""


class RejectedInputError(TeacherError):
    """The vendor rejected a request because of its inputs, and charged nothing. A part of them may be acceptable."""


class AbandonedError(Exception):
    """An order was abandoned between two attempts because the whole purchase is being stopped."""


def resumable(teacher: object) -> bool:
    """Whether requests that an earlier process sent without receiving a response cost nothing more."""
    return bool(getattr(teacher, "idempotent", False) or getattr(teacher, "jobs", None))
