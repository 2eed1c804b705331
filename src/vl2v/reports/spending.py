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
from vl2v.reports.sheet import Sheet
from vl2v.teacher.purchase.ledger import Ledger, LedgerEntry
from vl2v.teacher.purchase.store import EmbeddingStore

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
    known: bool
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


def spending(run: Path, needed: Mapping[str, Any], store: Path) -> Spending:
    """Read the spending of a run. Its name in the ledger is its folder.

    Args:
        needed: ``asked`` in `evaluation.json`. Empty for runs of earlier versions.
        store: file of purchased embeddings. It is not created if it is missing.
    """
    entries, note = _entries(str(run.resolve()), store)
    sums: dict[tuple[str, str, str, str], list[Any]] = {}
    for e in entries or ():
        total = sums.setdefault((e.kind, e.purpose, e.state, e.currency), [0, Decimal(0)])
        total[0] += e.queries
        total[1] += e.cost
    lines = tuple(Line(k, p, s, total[0], total[1], c) for (k, p, s, c), total in sums.items())
    if entries == []:
        note = "The ledger has no entry for this run: all embeddings were stored already, or the folder was moved."
    return Spending(
        lines,
        entries is not None,
        int(needed.get("image_queries", 0)),
        int(needed.get("text_queries", 0)),
        Decimal(str(needed.get("cost", "0"))),
        str(needed.get("currency", lines[0].currency if lines else "USD")),
        note,
    )


def _entries(run: str, store: Path) -> tuple[list[LedgerEntry] | None, str]:
    if not store.is_file():
        return None, f"The ledger is not available ({store} is missing), so purchases are not shown."
    try:
        with closing(EmbeddingStore.reading(store)) as opened:
            return Ledger(opened).entries(run), ""
    except (sqlite3.Error, OSError, Vl2vError) as error:
        reason = error.problem if isinstance(error, Vl2vError) else error
        return None, f"The ledger cannot be read: {reason}"


def spending_sheet(paid: Spending) -> Sheet:
    """Return the entries of the ledger, and the queries that training needs without stored embeddings."""
    rows: list[Sequence[str | int]] = [
        ("paid", line.kind, line.purpose, line.state, line.queries, f"{line.cost:f}", line.currency)
        for line in paid.lines
    ]
    for kind, queries in (("image", paid.image_queries), ("text", paid.text_queries)):
        rows.append(("needed for training", kind, "", "", queries, "", paid.currency))
    rows.append(("needed for training", "all", "", "", paid.image_queries + paid.text_queries, f"{paid.cost:f}", ""))
    return Sheet.of("spending", ("what", "kind", "purpose", "state", "queries", "cost", "currency"), rows)
