"""Quotes, budgets and the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from vl2v.errors import BudgetError
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.purchase.spending import Spending
from vl2v.teacher.purchase.store import EmbeddingStore

if TYPE_CHECKING:
    from vl2v.data.contents import Contents
    from vl2v.training_time import TrainingTime


@dataclass(frozen=True)
class Quote:
    """The queries that a command has to buy, and their cost.

    Attributes:
        teacher: identity of the teacher.
        images: distinct image queries needed, by purpose (``training``, ``unlabelled``, ``evaluation``).
        images_known: number of these that are stored already and cost nothing.
        texts: distinct text queries needed.
        texts_known: number of these that are stored already.
        price: price of the teacher.
        disk_bytes: disk space of the store, the pixel cache and the run's state, by name.
        note: a remark about the price, or empty.
        contents: domains, classes and counts of images; None without a folder.
        training: training time on this machine; None without a student.
    """

    teacher: str
    images: dict[str, int]
    images_known: dict[str, int]
    texts: int
    texts_known: int
    price: Price
    disk_bytes: dict[str, int]
    note: str = ""
    contents: Contents | None = None
    training: TrainingTime | None = None

    @property
    def image_queries(self) -> int:
        """Number of image queries to buy."""
        return sum(self.images.values()) - sum(self.images_known.values())

    @property
    def text_queries(self) -> int:
        """Number of text queries to buy."""
        return self.texts - self.texts_known

    @property
    def cost(self) -> Decimal:
        """Cost in `price.currency`."""
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
    """Purchases, read from the store.

    Args:
        store: the store with the entries.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store

    def entries(self, run: str | None = None) -> list[LedgerEntry]:
        """All entries, or those of one run, oldest first."""
        return [LedgerEntry(datetime.fromtimestamp(row[0], UTC), *row[1:]) for row in self._store.entries(run)]

    def spent(self, run: str | None = None) -> Decimal:
        """Sum of all entries, or of one run. A batch without a response counts, since it may have been charged."""
        return sum((entry.cost for entry in self.entries(run)), Decimal(0))

    def queries(self, run: str | None = None, kind: str = "image") -> int:
        """Number of queries of a kind that were sent and not refused."""
        entries = (entry for entry in self.entries(run) if entry.state != "refused")
        return sum(entry.queries for entry in entries if entry.kind == kind)

    def underway(self, card: TeacherCard) -> Decimal:
        """What is spent already on batches that will be answered, under their keys, without being charged again."""
        return sum((batch.cost for batch in self._store.pending(card)), Decimal(0))


class Budget:
    """A limit that is never exceeded, by any number of threads and, with `spending`, of processes, restarts and stores.

    Args:
        limit: the most that may be spent; None allows free queries only.
        spent: what was spent so far; left out with `spending`, which knows.
        currency: for messages.
        less: how to ask for less, for messages.
        spending: the record of what is spent, shared with other processes; None for a budget of this process alone.
    """

    def __init__(
        self,
        limit: Decimal | None,
        spent: Decimal = Decimal(0),
        currency: str = "USD",
        less: str = "fewer views, --no-zero-shot",
        spending: Spending | None = None,
    ) -> None:
        self.limit, self.currency, self._less = limit, currency, less
        self._spent, self._spending = spent, spending
        self._lock = threading.RLock()

    @property
    def spent(self) -> Decimal:
        """What is spent, or reserved, so far."""
        return self._spent if self._spending is None else self._spending.total

    @property
    def left(self) -> Decimal:
        """What may still be spent."""
        return (self.limit or Decimal(0)) - self.spent

    def check(self, cost: Decimal, what: str) -> None:
        """Refuse a cost that does not fit.

        Raises:
            BudgetError: if it would exceed the limit, or costs anything where no limit was given.
        """
        spent = self.spent
        left = (self.limit or Decimal(0)) - spent
        if cost <= 0 or cost <= left:
            return
        price = f"{what} for {cost:f} {self.currency}"
        if self.limit is None:
            problem, expected, step = (
                "No budget was given.",
                "a budget, since this teacher charges",
                f"--budget {cost:f}",
            )
        else:
            problem = "The budget does not cover this."
            expected = f"at most {left:f} {self.currency} ({spent:f} of {self.limit:f} spent)"
            step = f"raise it: --budget {spent + cost:f}, or query less: {self._less}"
        raise BudgetError(problem, expected=expected, found=price, next_step=step)

    def reserve(self, cost: Decimal, what: str, write: Callable[[], int]) -> int:
        """Spend a cost, and write it into the ledger, as one step.

        Args:
            cost: the most that it may be.
            what: for a message.
            write: opens the ledger entry and returns its number.

        Returns:
            The number of the entry.

        Raises:
            BudgetError: as `check` does; nothing is written then.
        """
        with self._alone(cost):
            self.check(cost, what)
            entry = write()
            self._book(entry, cost, Decimal(0))
        return entry

    def correct(self, entry: int, cost: Decimal, before: Decimal) -> None:
        """Book that an entry came to another cost than what was spent on it before."""
        if cost != before:
            with self._alone(max(cost, before)):
                self._book(entry, cost, before)

    def _book(self, entry: int, cost: Decimal, before: Decimal) -> None:
        self._spent += cost - before
        if self._spending is not None and cost != before:
            self._spending.book(entry, cost)

    @contextmanager
    def _alone(self, cost: Decimal) -> Iterator[None]:
        with self._lock:
            if self._spending is None or not cost:
                yield
            else:
                with self._spending.exclusive():
                    yield


@dataclass(frozen=True)
class PurchaseContext:
    """What all ledger entries of a purchase have in common.

    Attributes:
        store: with the ledger.
        budget: what the purchase is paid from.
        card: the teacher that is queried.
        run: the run's name.
        purpose: of the queries.
        view: of the images.
    """

    store: EmbeddingStore
    budget: Budget
    card: TeacherCard
    run: str
    purpose: str
    view: int = 0

    def open_entry(self, kind: str, queries: int, cost: Decimal, key: str = "", members: bytes | None = None) -> int:
        """Spend, and write so into the ledger; see `EmbeddingStore.open_entry`. Raises as `Budget.reserve` does."""

        def write() -> int:
            common = (self.card, self.run, kind, self.purpose, queries, cost)
            return self.store.open_entry(*common, key=key, members=members, view=self.view)

        return self.budget.reserve(cost, f"{queries} {kind} queries", write)
