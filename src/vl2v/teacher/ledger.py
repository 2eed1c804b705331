"""Money: what a purchase would cost, how much may be spent, and what was spent on what."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from vl2v.errors import BudgetError
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.store import EmbeddingStore


@dataclass(frozen=True)
class Quote:
    """What has to be bought, before anything is.

    Attributes:
        teacher: identity of the teacher.
        images: distinct image queries needed, by purpose (``training``, ``unlabelled``, ``evaluation``).
        images_known: how many of each are in the store already and cost nothing.
        texts: distinct text queries needed.
        texts_known: how many of them are in the store already.
        price: the teacher's.
        disk_bytes: what the store, the pixel cache and the run's state will add, by name.
    """

    teacher: str
    images: dict[str, int]
    images_known: dict[str, int]
    texts: int
    texts_known: int
    price: Price
    disk_bytes: dict[str, int]

    @property
    def image_queries(self) -> int:
        """Image queries that would be paid."""
        return sum(self.images.values()) - sum(self.images_known.values())

    @property
    def text_queries(self) -> int:
        """Text queries that would be paid."""
        return self.texts - self.texts_known

    @property
    def cost(self) -> Decimal:
        """Money, in `price.currency`."""
        return self.price.of(self.image_queries, self.text_queries)


@dataclass(frozen=True)
class LedgerEntry:
    """One batch that was sent.

    Attributes:
        time: when, UTC.
        run: for which run.
        teacher: to whom.
        kind: ``image`` or ``text``.
        purpose: what for.
        queries: how many.
        cost: in `currency`.
        currency: e.g. USD.
        attempts: how often it was sent; more than one only where the vendor charges a batch's key once.
        state: ``kept``; ``sent`` if no usable answer came back, which counts as spent since it may have been charged;
            or ``refused`` if the vendor said no and charged nothing.
    """

    time: datetime
    run: str
    teacher: str
    kind: str
    purpose: str
    queries: int
    cost: Decimal
    currency: str
    attempts: int
    state: str


class Ledger:
    """What was spent on what, read from the store.

    Args:
        store: where the entries are.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store

    def entries(self, run: str | None = None) -> list[LedgerEntry]:
        """All entries, or those of one run, oldest first."""
        return [LedgerEntry(datetime.fromtimestamp(row[0], UTC), *row[1:]) for row in self._store.entries(run)]

    def spent(self, run: str | None = None) -> Decimal:
        """The sum of all entries, or of one run's. A batch without an answer counts: it may have been charged."""
        return sum((entry.cost for entry in self.entries(run)), Decimal(0))

    def queries(self, run: str | None = None, kind: str = "image") -> int:
        """How many queries of a kind were sent, and not refused."""
        entries = (entry for entry in self.entries(run) if entry.state != "refused")
        return sum(entry.queries for entry in entries if entry.kind == kind)

    def underway(self, card: TeacherCard) -> Decimal:
        """What is spent already on batches that will be answered, under their keys, without being charged again."""
        return sum((batch.cost for batch in self._store.pending(card)), Decimal(0))


class Budget:
    """A limit that is never exceeded, across restarts of the same run and by any number of threads.

    Args:
        limit: the most that this run may spend; None allows free queries only.
        spent: what the run has spent so far.
        currency: for messages.
        less: how to ask for less, for messages.
    """

    def __init__(
        self,
        limit: Decimal | None,
        spent: Decimal = Decimal(0),
        currency: str = "USD",
        less: str = "fewer views, --no-zero-shot",
    ) -> None:
        self.limit, self.spent, self.currency, self._less = limit, spent, currency, less
        self._lock = threading.Lock()

    @property
    def left(self) -> Decimal:
        """What may still be spent."""
        return (self.limit or Decimal(0)) - self.spent

    def check(self, cost: Decimal, what: str) -> None:
        """Refuse a cost that does not fit.

        Raises:
            BudgetError: if it would exceed the limit, or costs anything where no limit was given.
        """
        if cost <= 0 or cost <= self.left:
            return
        price = f"{what} for {cost:f} {self.currency}"
        if self.limit is None:
            problem, expected, step = (
                "No budget was given.",
                "a limit, since this teacher charges",
                f"--budget {cost:f}",
            )
        else:
            problem = "The budget does not cover this."
            expected = f"at most {self.left:f} {self.currency} ({self.spent:f} of {self.limit:f} spent)"
            step = f"raise it: --budget {self.spent + cost:f}, or ask for less: {self._less}"
        raise BudgetError(problem, expected=expected, found=price, next_step=step)

    def take(self, cost: Decimal, what: str) -> None:
        """Spend, or refuse as `check` does."""
        with self._lock:
            self.check(cost, what)
            self.spent += cost

    def correct(self, change: Decimal) -> None:
        """Book that something came to more than was taken for it, or, below 0, to less."""
        with self._lock:
            self.spent += change
