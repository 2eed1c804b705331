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
    """What a run asked and paid.

    Attributes:
        lines: of the run's entries in the ledger; empty if it bought nothing, or the ledger is not at hand.
        known: whether the ledger was read.
        image_queries: images that training needs if nothing is known before.
        text_queries: prompts.
        cost: of both.
        currency: of `cost`.
        note: why the ledger says nothing, or empty.
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
        """By this run; batches that were sent and never answered count."""
        return sum((line.cost for line in self.lines), Decimal(0))

    @property
    def sent(self) -> int:
        """Queries that this run sent and that were not refused."""
        return sum(line.queries for line in self.lines if line.state != REFUSED)

    def image_price(self) -> Decimal | None:
        """What one image costs, as far as it can be seen from what was paid; None if it cannot."""
        images = [line for line in self.lines if line.kind == "image" and line.state != REFUSED]
        count = sum(line.queries for line in images)
        return sum((line.cost for line in images), Decimal(0)) / count if count else None


def spending(run: Path, asked: Mapping[str, Any], store: Path) -> Spending:
    """Of a run, whose name in the ledger is its folder.

    Args:
        run: the folder.
        asked: ``asked`` of `evaluation.json`; empty in runs of earlier versions.
        store: the file of bought vectors; it is not made if it is missing.
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
        int(asked.get("image_queries", 0)),
        int(asked.get("text_queries", 0)),
        Decimal(str(asked.get("cost", "0"))),
        str(asked.get("currency", lines[0].currency if lines else "USD")),
        note,
    )


def _entries(run: str, store: Path) -> tuple[list[LedgerEntry] | None, str]:
    if not store.is_file():
        return None, f"The ledger is not available ({store} is missing), so purchases are not shown."
    try:
        with closing(EmbeddingStore.reading(store)) as opened:
            return Ledger(opened).entries(run), ""
    except (sqlite3.Error, OSError, Vl2vError) as error:
        said = error.problem if isinstance(error, Vl2vError) else error
        return None, f"The ledger cannot be read: {said}"


def spending_sheet(found: Spending) -> Sheet:
    """What the ledger says, and what a run that knows nothing would ask."""
    rows: list[Sequence[str | int]] = [
        ("paid", line.kind, line.purpose, line.state, line.queries, f"{line.cost:f}", line.currency)
        for line in found.lines
    ]
    for kind, queries in (("image", found.image_queries), ("text", found.text_queries)):
        rows.append(("needed for training", kind, "", "", queries, "", found.currency))
    rows.append(("needed for training", "all", "", "", found.image_queries + found.text_queries, f"{found.cost:f}", ""))
    return Sheet.of("spending", ("what", "kind", "purpose", "state", "queries", "cost", "currency"), rows)
