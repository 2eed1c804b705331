"""Captions of a table: seeds, selection, weights, and the meaning of ± and of marks."""

from __future__ import annotations

from collections.abc import Iterator

from vl2v.benchmark.selection import RULES, joined
from vl2v.benchmark.tables import PAIRS, PUBLISHED_MARK, Table


def captions(table: Table, best: str, near: str) -> Iterator[str]:
    """Return the captions of a table, one or two sentences each.

    Args:
        best: how the best value of a column is marked.
        near: how values within one standard error of the best are marked.
    """
    many = len(table.seeds)
    seed_text = f"{many} seed{'' if many == 1 else 's'} ({', '.join(map(str, table.seeds))})"
    yield f"Top-1 accuracy in percent on each target domain, which was held out of training; {seed_text}."
    weights = "; ".join("saved by each run" if choice is None else choice for choice in table.weights)
    yield f"Selection: {RULES[table.rule]}. Weights: {weights}."
    if many > 1:
        errors = "±: standard error of the mean over seeds (n - 1)."
        yield f"{errors} The error of an average is that of the seeds' averages."
    else:
        yield "A single seed, so there is no standard error."
    yield f"{best.capitalize()}: best measured value; {near}: within one standard error of it."
    in_domain = "In-domain: validation images of the source domains."
    ece = "ECE: expected calibration error on the target, percent."
    yield f"{in_domain} {ece} Queries, cost and hours: mean per run with an empty store."
    if any(row.against for row in table.rows):
        unit = "pairs of target and seed" if table.unit == PAIRS else "seeds' averages over targets"
        test = f"mean and standard error over {unit}; p: two-sided paired t-test as if they were independent"
        same = "; each row is compared with the baseline with the same weights, the teacher with the first one"
        more = same if len(table.weights) > 1 else ""
        yield f"Differences: {test}, not corrected for the number of methods{more}."
    rows = [row for row in table.rows if PUBLISHED_MARK not in row.marks]
    counts = [row.targets[t].accuracy.count if t in row.targets else 0 for row in rows for t in table.targets]
    if min(counts, default=many) < many:
        seeds = f"n is stated if fewer than {many} seeds have finished; " if many > 1 else ""
        yield f"Unfinished grid: {seeds}averages need all {len(table.targets)} targets."
    if table.lacking:
        yield f"Omitted because records are missing: {joined(table.lacking)}."
    for source in dict.fromkeys(row.source for row in table.rows if PUBLISHED_MARK in row.marks):
        yield f"Published rows are quoted, not measured here: {source}."
