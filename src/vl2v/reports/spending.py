"""Queries and cost of a run, from the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from vl2v.errors import Vl2vError
from vl2v.formatting import exact
from vl2v.reports.sheet import Sheet
from vl2v.runs.storage import started_in
from vl2v.teacher.purchase.ledger import Ledger, LedgerEntry
from vl2v.teacher.purchase.spending import FILE, total_in
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v_runtime.names import printable, shown

REFUSED = "refused"


@dataclass(frozen=True)
class Line:
    """Queries of one kind and purpose."""

    kind: str
    purpose: str
    state: str
    queries: int
    cost: Decimal
    currency: str


@dataclass(frozen=True)
class Spending:
    """Queries and cost of a run.

    Attributes:
        lines: entries of the run in the ledger, summed. Empty if the run bought nothing or the ledger is not available.
        image_queries: image queries that training needs if no embeddings are stored.
        text_queries: text queries that training needs if no embeddings are stored.
        note: why there are no entries, or empty.
    """

    lines: tuple[Line, ...]
    image_queries: int
    text_queries: int
    cost: Decimal
    currency: str
    note: str = ""

    @property
    def paid(self) -> Decimal:
        """Amount that this run has paid, including requests without a response."""
        return sum((line.cost for line in self.lines), Decimal(0))

    def image_price(self) -> Decimal | None:
        """Return the price of one image, computed from what was paid, or None if no image was paid."""
        images = [line for line in self.lines if line.kind == "image" and line.state != REFUSED]
        count = sum(line.queries for line in images)
        return sum((line.cost for line in images), Decimal(0)) / count if count else None


def entries_of(run: Path, ledger: Ledger, store: Path) -> tuple[list[LedgerEntry], str]:
    """Return the entries of a run in the ledger, and a note if it has none under its path.

    The name of a run in the ledger is the path at which it was started. A run that was moved or copied here by this
    user has the entries of that path, too. A run from elsewhere records only an amount, in `spending.jsonl`.

    Args:
        store: path of the ledger, for the note.
    """
    here, started = printable(run.resolve()), started_in(run)
    entries, before = ledger.entries(here), str(started.run) if started else here
    if before != here and (earlier := ledger.entries(before)):
        note = f"The run was moved or copied. The ledger lists its purchases under {shown(before)}."
        return [*earlier, *entries], note
    if entries:
        return entries, ""
    note = (
        f"The ledger {shown(store)} has no entry for {shown(here)}. All embeddings were stored already, or the run was "
        "made under another path or on another machine, whose ledger lists its purchases."
    )
    amount = total_in(run)
    return [], note if amount is None else f"{note} According to {FILE} in the run, they cost {exact(amount)}."


def spending(run: Path, needed: Mapping[str, Any], store: Path) -> Spending:
    """Read the spending of a run, see `entries_of`.

    Args:
        needed: ``asked`` in `evaluation.json`. Empty for runs of earlier versions.
        store: file of purchased embeddings. It is not created if it is missing.
    """
    entries, note = _entries(run, store)
    sums: dict[tuple[str, str, str, str], list[Any]] = {}
    for e in entries:
        total = sums.setdefault((e.kind, e.purpose, e.state, e.currency), [0, Decimal(0)])
        total[0] += e.queries
        total[1] += e.cost
    lines = tuple(Line(k, p, s, total[0], total[1], c) for (k, p, s, c), total in sums.items())
    return Spending(
        lines,
        int(needed.get("image_queries", 0)),
        int(needed.get("text_queries", 0)),
        Decimal(str(needed.get("cost", "0"))),
        str(needed.get("currency", lines[0].currency if lines else "USD")),
        note,
    )


def _entries(run: Path, store: Path) -> tuple[list[LedgerEntry], str]:
    if not store.is_file():
        return [], f"The ledger is not available ({store} is missing), so purchases are not shown."
    try:
        with closing(EmbeddingStore.reading(store)) as embedding_store:
            return entries_of(run, Ledger(embedding_store), store)
    except (sqlite3.Error, OSError, Vl2vError) as error:
        reason = error.problem if isinstance(error, Vl2vError) else error
        return [], f"The ledger cannot be read: {reason}"


def spending_sheet(costs: Spending) -> Sheet:
    """Return the entries of the ledger, and the queries that training needs without stored embeddings."""
    rows: list[Sequence[str | int]] = [
        ("paid", line.kind, line.purpose, line.state, line.queries, exact(line.cost), line.currency)
        for line in costs.lines
    ]
    for kind, queries in (("image", costs.image_queries), ("text", costs.text_queries)):
        rows.append(("needed for training", kind, "", "", queries, "", costs.currency))
    rows.append(("needed for training", "all", "", "", costs.image_queries + costs.text_queries, exact(costs.cost), ""))
    return Sheet("spending", ("what", "kind", "purpose", "state", "queries", "cost", "currency"), rows)
