"""The amount spent from a budget, in a file that processes share."""

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
from vl2v_runtime.regular import read_regular

FILE, LOCK = "spending.jsonl", "spending.lock"


class Spending:
    """The cost of each ledger entry that counts against a budget, in a file to which each change is appended.

    The file repeats the ledgers of the stores, so that the budget also holds if a run continues with another store or
    under another path. The ledger of the store is written first, then this file, and only then is a request sent. A
    process that is killed in between has sent nothing. If a process is killed before a cost is corrected, the maximum
    cost counts until the same store is opened again.

    Args:
        folder: folder of the run or benchmark to which the budget belongs.
        mine: whether the ledger entries of a run, given by its name, count against this budget.
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
        """The amount spent or reserved so far."""
        with self._lock:
            self._refresh()
            return self._total

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock out other processes and threads, so that checking the budget and adding an entry are one step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock, file_lock(self._folder / LOCK):
            self._refresh()
            yield

    def book(self, entry: int, cost: Decimal) -> None:
        """Record the cost of a ledger entry, replacing an earlier cost. Call it within `exclusive`."""
        self._append(self._store.label(entry), cost)

    def _append(self, label: str, cost: Decimal) -> None:
        line = json.dumps({"entry": label, "cost": str(cost)}).encode() + b"\n"
        with in_place(self._file) as handle:
            handle.truncate(self._offset)  # drops a partial line of a process that was killed before it sent anything
            handle.seek(self._offset)
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())
        self._take(line)

    def _refresh(self) -> None:
        """Read the lines that were appended since the last call."""
        if not self._file.exists():
            return
        with self._file.open("rb") as handle:
            handle.seek(self._offset)
            for line in handle:
                if not line.endswith(b"\n"):
                    return
                self._take(line)

    def _take(self, line: bytes) -> None:
        label, cost = _parsed(line, self._file)
        self._total += cost - self._costs.get(label, Decimal(0))
        self._costs[label] = cost
        self._offset += len(line)


def total_in(folder: Path) -> Decimal | None:
    """Return the amount that counts against the budget of a run, as its folder records it; None if it does not.

    Raises:
        BudgetError: if the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    lines = read_regular(file).splitlines(keepends=True)
    return sum(dict(_parsed(line, file) for line in lines if line.endswith(b"\n")).values(), Decimal(0))


def _parsed(line: bytes, file: Path) -> tuple[str, Decimal]:
    """Return the label and the cost of a ledger entry."""
    try:
        record = json.loads(line)
        label, cost = str(record["entry"]), Decimal(str(record["cost"]))
        if not cost.is_finite():
            raise ValueError("not an amount")
    except (LookupError, TypeError, ValueError, InvalidOperation) as error:
        raise BudgetError(
            f"{file} is damaged, so the amount spent is unknown.",
            expected='lines of {"entry": .., "cost": ".."}',
            found=line[:60].decode(errors="replace").strip(),
            next_step="restore it, or remove it; then only the ledger of the current store counts",
        ) from error
    return label, cost
