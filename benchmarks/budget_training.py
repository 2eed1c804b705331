"""Accuracy on unseen domains of PACS if the budget covers only some of the queries: a random and a diverse selection.

Unlike `benchmarks/budget.py`, this trains the student. Each domain is left out in turn. A run with
``when_short: choose`` queries as many of its training images as the budget covers, and is trained on the others by
their labels alone. The random selection replaces `vl2v.analysis.selection.diverse` by a random sample per domain. A
finished run is not repeated.

    python benchmarks/budget_training.py --scratch budget
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from common import circumstances, keep, scratch_option
from pacs_dataset import DOMAINS
from pacs_runs import accuracies, short_settings
from vl2v.allocator import keep_freed_memory
from vl2v.analysis.selection import at_random, diverse
from vl2v.locations import StoragePaths
from vl2v.nested import merge
from vl2v.planning.plan import plan_run
from vl2v.settings import make_config

SEEDS, SHARES, ALL = (0,), (0.1,), "all queries"
PRICE: dict[str, Any] = {"teacher": {"price_per_1000_images": "1", "zero_shot": False}, "when_short": "choose"}


def random_images(_: Any, groups: Any, count: int, *, seed: int, taken: Any) -> Any:
    """Select images at random, with the arguments of `diverse`."""
    return at_random(groups, count, seed, taken)


WAYS: dict[str, Callable[..., Any]] = {"random": random_images, "diverse": diverse}


def train(scratch: Path, target: str, seed: int, way: str, share: float) -> dict[str, float]:
    """Train a student with some of the queries, and return its accuracies."""
    name = f"{way.replace(' ', '-')}-{share:g}-{target}-{seed}"
    settings = short_settings(scratch, target, seed)
    storage = StoragePaths(scratch / "cache", scratch / "stores" / f"{name}.sqlite")
    if way == ALL:
        return accuracies(scratch / "runs" / name, settings, storage)
    images = plan_run(make_config(None, merge(settings, PRICE)), storage).quote.image_queries
    with patch("vl2v.commands.choosing.diverse", WAYS[way]):
        budget = str(Decimal(round(share * images)) / 1000)
        return accuracies(scratch / "runs" / name, settings, storage, PRICE, budget)


def main() -> None:
    """Train all students and write the figures."""
    scratch = scratch_option(__doc__).resolve()
    keep_freed_memory()
    torch.set_num_threads(1)
    kinds = [(ALL, 1.0), *itertools.product(WAYS, SHARES)]
    runs: list[dict[str, Any]] = []
    for seed, target, (way, share) in itertools.product(SEEDS, DOMAINS, kinds):
        accuracies = train(scratch, target, seed, way, share)
        runs.append({"way": way, "share": share, "target": target, "seed": seed} | accuracies)
    means = {
        f"{way}, {share:.0%}": statistics.fmean(r["unseen"] for r in runs if (r["way"], r["share"]) == (way, share))
        for way, share in kinds
    }
    keep("budget_training", {"circumstances": circumstances(SEEDS), "unseen": means, "runs": runs})


if __name__ == "__main__":
    main()
