"""The accounting of one batch: its cost is reserved, then confirmed, released, or recorded as possibly charged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

from vl2v.errors import TeacherError
from vl2v.formatting import exact
from vl2v.teacher.http.remote import Account, Order
from vl2v.teacher.purchase.ledger import PurchaseContext
from vl2v.teacher.purchase.ledger_table import Pending


class BatchAccount(Account):
    """Records the attempts at one order in the ledger.

    If the vendor charges an idempotency key only once, all attempts share one ledger entry, also across processes.
    Otherwise each attempt has its own entry, and each attempt that may have been charged counts as spent.

    Args:
        once: whether the vendor charges the key of the order only once.
        members: contents of the batch; see `Pending`.
        earlier: the pending entry of an earlier process that sent the same order, if there is one.
    """

    def __init__(
        self, context: PurchaseContext, order: Order, once: bool, members: bytes = b"", earlier: Pending | None = None
    ) -> None:
        self._context, self._order, self._once, self._members = context, order, once, members
        self._entry = earlier.entry if earlier else None
        self._mine = earlier is None or earlier.run == context.run  # whether the cost is reserved in this run's budget
        self._reserved_cost = earlier.cost if earlier else Decimal(0)
        self._doubt = earlier is not None  # an attempt under this entry may have been charged
        self._fresh = False  # reserved and not sent yet
        self._open = False  # sent, with an unknown outcome
        self._lock = threading.Lock()

    def reserve(self) -> None:
        """Reserve the maximum cost of the order in the budget, and add an entry to the ledger.

        Raises:
            BudgetError: if the remaining budget is too small; nothing is recorded then.
        """
        if self._entry is not None:
            return
        order = self._order
        key, members = (order.key, self._members) if self._once else ("", None)
        self._entry = self._context.open_entry(order.kind, order.count, order.cost, key, members)
        self._reserved_cost, self._mine, self._fresh = order.cost, True, True

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
            assert self._entry is not None
            self._context.store.note(self._entry, why)
            if self._once:
                self._doubt = True
            else:
                self._entry = None  # it counts as spent; the next attempt gets a new entry

    def wasted(self, why: str, cost: Decimal | None) -> None:
        """See `Account.wasted`; the entry counts as spent, and its key is not used again."""
        with self._lock:
            self._open, self._doubt = False, True
            assert self._entry is not None
            self._context.store.write_off(self._entry, why, cost)
            if cost is not None and self._mine:
                self._context.budget.correct(self._entry, cost, self._reserved_cost)
                self._reserved_cost = cost

    def give_up(self) -> None:
        """End the attempts, and release the reservation if the vendor certainly charged nothing."""
        with self._lock:
            if self._entry is not None and not (self._doubt or self._open):
                self._give_back("given up")

    def settle(self, charged: Decimal | None, save: Callable[[int, Decimal | None], None]) -> None:
        """Save the response, and replace the reserved cost by the charged cost.

        Args:
            charged: cost stated by the vendor; None if it states none.
            save: saves the embeddings and settles a ledger entry at a cost. For the cost None, the reserved cost
                remains.
        """
        assert self._entry is not None
        save(self._entry, charged)
        if charged is not None and self._mine:
            self._context.budget.correct(self._entry, charged, self._reserved_cost)

    def overcharged(self, charged: Decimal | None) -> TeacherError | None:
        """Return the error to report if the vendor charged more than it stated, and None otherwise."""
        if charged is None or charged <= self._reserved_cost:
            return None
        currency, order = self._context.card.price.currency, self._order
        return TeacherError(
            f"{self._context.card.identity} charged more than it stated.",
            expected=f"at most {exact(self._reserved_cost)} {currency} for {order.count} {order.kind} queries",
            found=f"{exact(charged)} {currency}",
            next_step="the response is saved and recorded at that price; get a new quote before you continue",
        )

    def _give_back(self, why: str) -> None:
        assert self._entry is not None
        self._context.store.note(self._entry, why, refused=True)
        if self._mine:
            self._context.budget.correct(self._entry, Decimal(0), self._reserved_cost)
        self._entry, self._reserved_cost, self._fresh = None, Decimal(0), False
