"""Quotes, budgets and the ledger."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial

from vl2v.errors import BudgetError, ConfigError
from vl2v.formatting import exact
from vl2v.sqlite import keys_of
from vl2v.teacher.base import Teacher, TeacherCard
from vl2v.teacher.http.remote import resumable
from vl2v.teacher.purchase.ledger_table import JOB
from vl2v.teacher.purchase.ledger_table import LedgerEntry as LedgerEntry
from vl2v.teacher.purchase.quote import Quote as Quote
from vl2v.teacher.purchase.spending import Spending
from vl2v.teacher.purchase.store import Digests, EmbeddingStore


class Ledger:
    """The record of all purchases in a store."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store

    def entries(self, run: str | None = None) -> list[LedgerEntry]:
        """Return all entries, or those of one run, oldest first."""
        return self._store.entries(run)

    def spent(self, run: str | None = None) -> Decimal:
        """Return the total cost of all entries, or of one run.

        A batch without a response counts as spent, since it may have been charged.
        """
        return sum((entry.cost for entry in self.entries(run)), Decimal(0))

    def queries(self, run: str | None = None, kind: str = "image") -> int:
        """Return the number of queries of a kind (``image`` or ``text``) that were sent and not refused."""
        entries = (entry for entry in self.entries(run) if entry.state != "refused")
        return sum(entry.queries for entry in entries if entry.kind == kind)


def reserved(
    teacher: Teacher | None, store: EmbeddingStore, images: Iterable[tuple[int, Digests]], texts: Sequence[str]
) -> Decimal:
    """Return the price of those queries that the store lacks and that are in flight, which cost nothing more.

    Args:
        teacher: the teacher to query; None for no queries.
        images: views, and [N, 32] uint8, the SHA-256 of their images.
    """
    if teacher is None or not resumable(teacher) or not (pending := store.pending(teacher.describe())):
        return Decimal(0)
    card, count = teacher.describe(), {"images": 0, "texts": 0}
    lacking = {key for view, rows in images for key in _keyed(view, rows[store.lacks(card, rows, view)])}
    missing = set(store.lacks_texts(card, texts))
    sent = {batch.entry for batch in store.pending(card, "text")}
    for batch in pending:
        if batch.entry in sent:
            if (batch_texts := set(json.loads(batch.members))) <= missing:
                count["texts"] += len(batch_texts)
                missing -= batch_texts
        else:
            members = _keyed(batch.view, batch.images)
            if batch.key.startswith(JOB) or members <= lacking:  # a request is only repeated as a whole
                count["images"] += len(members & lacking)
                lacking -= members
    return card.price.of(**count)


def _keyed(view: int, rows: Digests) -> set[tuple[int, bytes]]:
    return {(view, key) for key in keys_of(rows)}


MOST_MONEY = 1_000_000_000_000


def parse_budget(value: Decimal | str | float | None) -> Decimal | None:
    """Parse the budget of a function of the Python API.

    Args:
        value: from 0 to `MOST_MONEY`; None for no budget.

    Raises:
        ConfigError: if it is not an amount of money.
    """
    if value is None:
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("nan")
    if not (amount.is_finite() and 0 <= amount <= MOST_MONEY):
        raise ConfigError(
            "The budget is not an amount of money.",
            expected=f"a number from 0 to {MOST_MONEY:,}, or None",
            found=str(value)[:40],
            next_step='correct the budget, e.g. budget="0.50"',
        )
    return amount


class Budget:
    """A spending limit that holds across threads and, with `spending`, across processes, restarts and stores.

    Args:
        limit: maximum amount; None allows only free queries.
        spent: the amount spent so far; not used with `spending`.
        less: how the user can reduce the number of queries, for messages.
        spending: record of the amount spent, shared between processes; None for a budget of this process only.
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
        self._reserved: set[int] = set()  # entries of this process
        self._earlier = spent  # cost of the entries of earlier processes in the amount spent
        self._lock = threading.RLock()

    @property
    def spent(self) -> Decimal:
        """The amount spent or reserved so far."""
        return self._spent if self._spending is None else self._spending.total

    @property
    def left(self) -> Decimal:
        """The amount that may still be spent."""
        return (self.limit or Decimal(0)) - self.spent

    def check(self, cost: Decimal, what: str) -> None:
        """Raise an error if the remaining budget does not cover a cost.

        Args:
            cost: the cost, in the budget's currency.
            what: what it pays for, for the message.

        Raises:
            BudgetError: if the cost exceeds the remaining budget, or is above 0 without a limit.
        """
        spent = self.spent
        remainder = (self.limit or Decimal(0)) - spent
        if cost <= 0 or cost <= remainder:
            return
        price = f"{what} for {exact(cost)} {self.currency}"
        if self.limit is None:
            problem, expected = "No budget was given.", "a budget, since this teacher charges"
            step = f"--budget {exact(cost)}"
        else:
            problem = "The budget does not cover this."
            expected = f"at most {exact(remainder)} {self.currency} ({exact(spent)} of {exact(self.limit)} spent)"
            step = f"raise it: --budget {exact(spent + cost)}, or query less: {self._less}"
        raise BudgetError(problem, expected=expected, found=price, next_step=step)

    def reserve(self, cost: Decimal, what: str, write: Callable[[], int], undo: Callable[[int], None]) -> int:
        """Spend a cost, and write it into the ledger, as one step; return the number of the entry.

        Args:
            what: what it pays for, for the message.
            write: adds the ledger entry and returns its number.
            undo: called with this number if the record of the amount spent cannot be written, since nothing is sent.

        Raises:
            BudgetError: as `check` does; nothing is written then.
            OSError: if the record of the amount spent cannot be written, e.g. on a full disk.
        """
        with self._alone(cost):
            self.check(cost, what)
            entry = write()
            self._reserved.add(entry)
            try:
                self._book(entry, cost, Decimal(0))
            except OSError:
                self._spent -= cost
                undo(entry)
                raise
        return entry

    def correct(self, entry: int, cost: Decimal, before: Decimal) -> None:
        """Replace the cost of an entry, recorded as `before`, by `cost`.

        Without `spending`, the entry of an earlier process may not be in the amount spent. Then nothing is replaced.
        """
        if cost == before:
            return
        with self._alone(max(cost, before)):
            if self._spending is None and entry not in self._reserved:
                if before > self._earlier:
                    return
                self._earlier += cost - before
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
    """The store, the budget and the ledger fields of a purchase."""

    store: EmbeddingStore
    budget: Budget
    card: TeacherCard
    run: str
    purpose: str
    view: int = 0

    def open_entry(self, kind: str, queries: int, cost: Decimal, key: str = "", members: bytes | None = None) -> int:
        """Reserve a cost and add its ledger entry in one step; see `EmbeddingStore.open_entry`.

        Raises:
            BudgetError: if the remaining budget does not cover the cost; nothing is recorded then.
        """
        common = (self.card, self.run, kind, self.purpose, queries, cost)
        write = partial(self.store.open_entry, *common, key=key, members=members, view=self.view)
        undo = partial(self.store.note, why="not sent: the amount spent could not be recorded", refused=True)
        return self.budget.reserve(cost, f"{queries} {kind} queries", write, undo)
