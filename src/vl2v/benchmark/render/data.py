"""Tables as CSV and JSON, in full precision, accuracies in [0, 1]."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from vl2v.benchmark.tables import Measures, Row, Table

TARGET, AVERAGE = "target", "average"
MEASURES = ("accuracy", "in_domain", "ece", "ece_calibrated")
COLUMNS = (
    *("benchmark", "selection", "method", "title", "marks", "weights", "scope", "target", "seeds"),
    *(name for measure in MEASURES for name in (measure, f"{measure}_se")),
    *("image_queries", "text_queries", "cost", "currency", "hours"),
    *("baseline", "unit", "difference", "difference_se", "pairs", "p", "p_exact", "source"),
)


def to_csv(table: Table) -> str:
    """Return CSV with one line per row and target (`scope` is ``target``) and one for the average (``average``).

    Unknown values are empty; an average without all targets has 0 seeds. Queries, cost, hours and the difference to the
    baseline concern the whole row and are in the line of the average.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        shared = {
            "benchmark": table.benchmark,
            "selection": table.rule if row.expense else "",
            "method": row.method,
            "title": row.title,
            "marks": " ".join(row.marks),
            "weights": row.weights or ("saved" if row.expense else ""),
        }
        if row.expense:
            for target in table.targets:
                line = {"scope": TARGET, "target": target, **_measures(row.targets.get(target))}
                writer.writerow(shared | line)
        writer.writerow(shared | {"scope": AVERAGE, **_measures(row.average), **_whole(table, row)})
    return text.getvalue()


def _measures(measures: Measures | None) -> dict[str, Any]:
    if measures is None:
        return {"seeds": 0}
    values: dict[str, Any] = {"seeds": measures.accuracy.count or ""}
    for name in MEASURES:
        spread = getattr(measures, name)
        if spread is not None:
            values |= {name: repr(spread.mean), f"{name}_se": _number(spread.error)}
    return values


def _whole(table: Table, row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {"source": row.source}
    if row.expense:
        values |= asdict(row.expense)
    if row.against:
        spread = row.against.spread
        values |= {"baseline": table.baseline, "unit": table.unit, "pairs": spread.count}
        values |= {"difference": repr(spread.mean), "difference_se": _number(spread.error)}
        values |= {"p": _number(row.against.p), "p_exact": _number(row.against.p_exact)}
    return values


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def to_json(table: Table) -> str:
    """Return the fields of the table as JSON; unknown values are null, and amounts of money are strings."""
    return TypeAdapter(Table).dump_json(table, indent=2).decode() + "\n"
