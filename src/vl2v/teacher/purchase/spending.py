"""Spending against one budget, across processes and stores, in its own file."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path

from vl2v.errors import BudgetError
from vl2v.locking import file_lock
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.writing import in_place

FILE, LOCK = "spending.jsonl", "spending.lock"


class Spending:
    """The entries that count against a budget, each with its cost: a line for every change, appended under a lock.

    It repeats what the ledgers of the stores say, so that the budget holds if a run goes on with another store or under
    another path. Whatever changes, the store's ledger has it first, and an entry is written here before anything is
    sent. A process that is killed in between has sent nothing; one that is killed before an entry is corrected leaves
    the most that it could cost, until the same store is opened again.

    Args:
        folder: of what the budget is for: a run's or a benchmark's.
        store: the store out of which is bought now.
        mine: whether a run's name in the ledger belongs to this budget.
    """

    def __init__(self, folder: Path, store: EmbeddingStore, mine: Callable[[str], bool]) -> None:
        self._folder, self._file, self._store = folder, folder / FILE, store
        self._costs: dict[str, Decimal] = {}
        self._total, self._offset = Decimal(0), 0
        self._lock = threading.RLock()
        if self._file.exists() or any(cost for _, run, cost in store.costs() if mine(run)):
            with self.exclusive():
                for label, run, cost in store.costs():
                    if mine(run) and cost != self._costs.get(label, Decimal(0)):
                        self._append(label, cost)

    @property
    def total(self) -> Decimal:
        """What is spent, or reserved, so far."""
        with self._lock:
            self._refresh()
            return self._total

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other process and thread from spending meanwhile, so that a check and an entry are one step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock, file_lock(self._folder / LOCK):
            self._refresh()
            yield

    def book(self, entry: int, cost: Decimal) -> None:
        """Write down what an entry of the store costs, over what was written of it before; within `exclusive`."""
        self._append(self._store.label(entry), cost)

    def _append(self, label: str, cost: Decimal) -> None:
        line = json.dumps({"entry": label, "cost": str(cost)}).encode() + b"\n"
        with in_place(self._file) as handle:
            handle.truncate(self._offset)  # half a line is what a killed process left, before it sent anything
            handle.seek(self._offset)
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())
        self._take(line)

    def _refresh(self) -> None:
        """Read what was appended since."""
        if not self._file.exists():
            return
        with self._file.open("rb") as handle:
            handle.seek(self._offset)
            for line in handle:
                if not line.endswith(b"\n"):
                    return
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            label, cost = str(found["entry"]), Decimal(str(found["cost"]))
            if not cost.is_finite():
                raise ValueError("no amount")
        except (LookupError, TypeError, ValueError, InvalidOperation) as error:
            raise BudgetError(
                f"{self._file} is damaged, so the amount spent is unknown.",
                expected='lines of {"entry": .., "cost": ".."}',
                found=line[:60].decode(errors="replace").strip(),
                next_step="restore it, or remove it; then only the ledger of the current store counts",
            ) from error
        self._total += cost - self._costs.get(label, Decimal(0))
        self._costs[label] = cost
        self._offset += len(line)
