"""Tables of the bench's results: accuracy on targets, and on left-out sources, by which variants are selected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lab_parts.variant import read_lines

Line = dict[str, Any]


def show(files: Sequence[Path], against: str) -> None:
    """Print a table for each data set and teacher: first the left-out sources, best on top, then the targets.

    Args:
        files: JSON lines.
        against: the variant that differences are taken from, pair by pair.
    """
    groups: dict[tuple[str, str, int], dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in read_lines(files):
        groups[line["dataset"], line["with"], len(line["removed"])][line["variant"]].append(line)
    for (dataset, teacher, removed), variants in sorted(groups.items(), key=lambda item: (item[0][:2], -item[0][2])):
        what = "targets" if removed == 1 else "left-out sources (choose by these)"
        print(f"\n{dataset}, {teacher}: {what}")
        domains = sorted({name for lines in variants.values() for line in lines for name in line["test"]})
        columns = [*domains, "mean", "±", "val", "ece", "fitted", "diff", "±", "p", "n"]
        print("  ".join([f"{'variant':28}", *(f"{name[:8]:>8}" for name in columns)]))
        base = _scores(variants.get(against, []))
        for name, lines in sorted(variants.items(), key=lambda item: -_mean(item[1])):
            cells = [_domain(lines, domain) for domain in domains]
            cells += [_mean(lines), _error(lines), *(_average(lines, k) for k in ("val", "ece", "ece_fitted"))]
            cells += [*_difference(_scores(lines), base), float(len(lines))]
            print("  ".join([f"{name[:28]:28}", *(f"{cell:8.2f}" if cell == cell else " " * 8 for cell in cells)]))
        _unseen(variants)


def _scores(lines: list[Line]) -> dict[tuple[Any, ...], float]:
    return {(tuple(x["removed"]), x["seed"], d): s["acc"] for x in lines for d, s in x["test"].items()}


def _domain(lines: list[Line], domain: str) -> float:
    return float(np.mean([x["test"][domain]["acc"] for x in lines if domain in x["test"]] or [np.nan]))


def _by_seed(lines: list[Line]) -> list[float]:
    """The mean over domains of each seed that has all the pairs that any seed has."""
    seeds: dict[int, list[float]] = defaultdict(list)
    for line in lines:
        seeds[line["seed"]] += [s["acc"] for s in line["test"].values()]
    most = max(map(len, seeds.values()))
    return [float(np.mean(values)) for values in seeds.values() if len(values) == most]


def _mean(lines: list[Line]) -> float:
    return float(np.mean(_by_seed(lines)))


def _error(lines: list[Line]) -> float:
    values = _by_seed(lines)
    return float(stats.sem(values)) if len(values) > 1 else float("nan")


def _average(lines: list[Line], field: str) -> float:
    if field == "val":
        return float(np.mean([x["val_mean"] for x in lines]))
    return float(np.mean([s[field] for x in lines for s in x["test"].values()]))


def _difference(own: dict[tuple[Any, ...], float], base: dict[tuple[Any, ...], float]) -> tuple[float, float, float]:
    """Mean, standard error and p of the paired differences over targets and seeds."""
    pairs = np.array([own[key] - base[key] for key in own.keys() & base.keys()])
    if len(pairs) < 2 or not pairs.any():
        return (float(pairs.mean()) if len(pairs) else float("nan"), float("nan"), float("nan"))
    return float(pairs.mean()), float(stats.sem(pairs)), float(stats.ttest_1samp(pairs, 0).pvalue)


def _unseen(variants: dict[str, list[Line]]) -> None:
    for name, lines in variants.items():
        for kind in ("val", "test"):
            scores = [s for line in lines for s in line[kind].values() if "harmonic" in s]
            if scores:
                means = {key: np.mean([s[key] for s in scores]) for key in ("seen", "unseen", "harmonic")}
                print(f"  {name}, {kind}: " + ", ".join(f"{key} {value:.1f}" for key, value in means.items()))
