"""Captions of a table: seeds, selection, weights, and the meaning of ± and of marks."""

from __future__ import annotations

from vl2v.benchmark.selection import RULES, joined
from vl2v.benchmark.tables import PAIRS, PUBLISHED_MARK, Table


def captions(table: Table, best: str, near: str) -> tuple[str, ...]:
    """Return the captions of a table, one sentence per line.

    Args:
        best: how the best value of a column is marked.
        near: how values within one standard error of the best are marked.
    """
    many = len(table.seeds)
    named = f"{many} seed{'' if many == 1 else 's'} ({', '.join(map(str, table.seeds))})"
    weights = "; ".join("saved by each run" if choice is None else choice for choice in table.weights)
    lines = [
        f"Top-1 accuracy in percent on each target domain, which was held out of training; {named}.",
        f"Selection: {RULES[table.rule]}. Weights: {weights}.",
        "±: standard error of the mean over seeds (n - 1). The error of an average is that of the seeds' averages."
        if many > 1
        else "A single seed, so there is no standard error.",
        f"{best.capitalize()}: best measured value; {near}: within one standard error of it.",
        "In-domain: validation images of the source domains. ECE: expected calibration error on the target, percent. "
        "Queries, cost and hours: mean per run with an empty store.",
    ]
    return (*lines, *_about_differences(table), *_about_gaps(table), *_about_published(table))


def _about_differences(table: Table) -> tuple[str, ...]:
    if not any(row.against for row in table.rows):
        return ()
    unit = "pairs of target and seed" if table.unit == PAIRS else "seeds' averages over targets"
    test = f"Differences: mean and standard error over {unit}; p: two-sided paired t-test as if they were independent"
    same = (
        "; each row is compared with the baseline with the same weights, the teacher with the first one"
        if len(table.weights) > 1
        else ""
    )
    return (f"{test}, not corrected for the number of methods{same}.",)


def _about_gaps(table: Table) -> tuple[str, ...]:
    measured = [row for row in table.rows if PUBLISHED_MARK not in row.marks]
    many = len(table.seeds)
    counts = [row.targets[t].accuracy.count if t in row.targets else 0 for row in measured for t in table.targets]
    lines = []
    if min(counts, default=many) < many:
        seeds = f"n is stated if fewer than {many} seeds have finished; " if many > 1 else ""
        lines.append(f"Unfinished grid: {seeds}averages need all {len(table.targets)} targets.")
    if table.lacking:
        lines.append(f"Omitted because records are missing: {joined(table.lacking)}.")
    return tuple(lines)


def _about_published(table: Table) -> tuple[str, ...]:
    sources = dict.fromkeys(row.source for row in table.rows if PUBLISHED_MARK in row.marks)
    return tuple(f"Published rows are quoted, not measured here: {source}." for source in sources)
