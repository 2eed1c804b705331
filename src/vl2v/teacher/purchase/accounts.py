"""Accounting of one batch: reserved, then confirmed, refused, or recorded as possibly charged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

from vl2v.errors import TeacherError
from vl2v.teacher.http.remote import Order
from vl2v.teacher.purchase.ledger import PurchaseContext
from vl2v.teacher.purchase.store import Pending


class BatchAccount:
    """Books the attempts at one order; see `vl2v.teacher.http.remote.Account`.

    A vendor that charges a key once gets one entry for all attempts, in this process and in the next one. Any other
    vendor gets an entry for each attempt, and every one that may have been charged stays spent.

    Args:
        context: what is bought, and where it is recorded.
        order: what is sent.
        once: whether the vendor charges the order's key once.
        members: what the batch holds; see `Pending`.
        earlier: the entry of another process that sent the same order, if there is one.
    """

    def __init__(
        self, context: PurchaseContext, order: Order, once: bool, members: bytes = b"", earlier: Pending | None = None
    ) -> None:
        self._context, self._order, self._once, self._members = context, order, once, members
        self._entry = earlier.entry if earlier else None
        self._mine = earlier is None or earlier.run == context.run  # whether this run's budget holds the reservation
        self._held = earlier.cost if earlier else Decimal(0)
        self._doubt = earlier is not None  # an attempt under this entry may have been charged
        self._fresh = False  # reserved, and not sent yet
        self._open = False  # sent, and nothing known of how it ended
        self._lock = threading.Lock()

    def reserve(self) -> None:
        """Take the most that it can cost out of the budget, and write so into the ledger.

        Raises:
            BudgetError: if that is more than is left; nothing is booked then.
        """
        if self._entry is not None:
            return
        order = self._order
        key, members = (order.key, self._members) if self._once else ("", None)
        self._entry = self._context.open_entry(order.kind, order.count, order.cost, key, members)
        self._held, self._mine, self._fresh = order.cost, True, True

    def sending(self) -> None:
        """See `Account.sending`."""
        with self._lock:
            if self._entry is not None and not self._fresh:
                self._context.store.sent_again(self._entry)
            self.reserve()
            self._fresh, self._open = False, True

    def refused(self, why: str) -> None:
        """See `Account.refused`."""
        with self._lock:
            self._open = False
            if self._entry is None:
                return
            if self._once:
                self._context.store.note(self._entry, why)
            else:
                self._give_back(why)

    def lost(self, why: str) -> None:
        """See `Account.lost`."""
        with self._lock:
            self._open = False
            if self._entry is None:
                return
            self._context.store.note(self._entry, why)
            if self._once:
                self._doubt = True
            else:
                self._entry = None  # it stays spent; another attempt is another entry

    def wasted(self, why: str, cost: Decimal | None) -> None:
        """See `Account.wasted`; the entry stays spent, and its key is not used again."""
        with self._lock:
            self._open, self._doubt = False, True
            if self._entry is None:
                return
            self._context.store.write_off(self._entry, why, cost)
            if cost is not None and self._mine:
                self._context.budget.correct(self._entry, cost, self._held)
                self._held = cost

    def give_up(self) -> None:
        """No further attempt follows: give back what surely was not charged."""
        with self._lock:
            if self._entry is not None and not (self._doubt or self._open):
                self._give_back("given up")

    def settle(self, charged: Decimal | None, keep: Callable[[int, Decimal | None], None]) -> None:
        """An answer is there: keep it, and correct the budget by what it cost.

        Args:
            charged: what the vendor says, or None.
            keep: settles an entry of the store's ledger at a cost; None leaves what was reserved.
        """
        assert self._entry is not None
        keep(self._entry, charged)
        if charged is not None and self._mine:
            self._context.budget.correct(self._entry, charged, self._held)

    def overcharged(self, charged: Decimal | None) -> TeacherError | None:
        """What to tell the user if the vendor took more than its price list says."""
        if charged is None or charged <= self._held:
            return None
        currency = self._context.card.price.currency
        return TeacherError(
            f"{self._context.card.identity} charged more than it stated.",
            expected=f"at most {self._held:f} {currency} for {self._order.count} {self._order.kind} queries",
            found=f"{charged:f} {currency}",
            next_step="the response is saved and recorded at that price; get a new quote before you continue",
        )

    def _give_back(self, why: str) -> None:
        assert self._entry is not None
        self._context.store.note(self._entry, why, refused=True)
        if self._mine:
            self._context.budget.correct(self._entry, Decimal(0), self._held)
        self._entry, self._held, self._fresh = None, Decimal(0), False
