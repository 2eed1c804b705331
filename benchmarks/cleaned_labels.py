"""Accuracy on unseen domains of PACS after training on wrong labels, cleaned ones and the original ones.

Each domain is left out in turn. In the three others, 5% of the labels are changed to another class at random. The
student is trained on these labels, on the rest after `vl2v data suspects` (`--drop`), and on the original labels. The
left-out domain always has its original labels, and is not checked. A finished run is not repeated.

    python benchmarks/cleaned_labels.py --scratch cleaned
"""

from __future__ import annotations

import csv
import itertools
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import circumstances, keep, scratch_option
from pacs_dataset import DOMAINS
from pacs_runs import accuracies, short_settings
from vl2v.allocator import keep_freed_memory
from vl2v.api import make_config
from vl2v.cli.console import LogLines
from vl2v.commands.suspects import find_suspects
from vl2v.locations import StoragePaths

SEEDS, FLIPPED, METHODS = (0,), 0.05, ("vl2v",)
LABELS = ("flipped", "cleaned", "original")


def write_table(root: Path, target: str, seed: int, flipped: bool) -> Path:
    """Write a table of all images, in which labels of the source domains may be flipped; return its path."""
    file = root / f"{'flipped' if flipped else 'original'}-{target}-{seed}.csv"
    images = sorted(path.relative_to(root) for domain in DOMAINS for path in (root / domain).glob("*/*"))
    classes = sorted({path.parts[1] for path in images})
    labels = np.array([classes.index(path.parts[1]) for path in images])
    sources = np.flatnonzero([path.parts[0] != target for path in images])
    generator = np.random.default_rng(seed)
    if flipped:
        chosen = generator.permutation(sources)[: round(FLIPPED * len(sources))]
        labels[chosen] = (labels[chosen] + generator.integers(1, len(classes), len(chosen))) % len(classes)
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("path", "label", "domain"))
        rows.writerows(zip(images, (classes[k] for k in labels), (p.parts[0] for p in images), strict=True))
    return file


def train(scratch: Path, method: str, target: str, seed: int, labels: str) -> dict[str, float]:
    """Train a student on the flipped, the cleaned or the original labels, and return its accuracies."""
    storage = StoragePaths(scratch / "cache", scratch / "store.sqlite")
    settings = short_settings(scratch, target, seed, method)
    settings["data"]["root"] = str(write_table(Path(settings["data"]["root"]), target, seed, labels != "original"))
    if labels == "cleaned":
        suspects = scratch / f"suspects-{target}-{seed}.csv"
        if not suspects.exists():
            find_suspects(make_config(None, settings), suspects, storage, LogLines())
        settings["data"]["drop"] = str(suspects)
    return accuracies(scratch / "runs" / f"{method}-{labels}-{target}-{seed}", settings, storage)


def main() -> None:
    """Train all students and write the figures."""
    scratch = scratch_option(__doc__).resolve()
    keep_freed_memory()
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = []
    for seed, method, target, labels in itertools.product(SEEDS, METHODS, DOMAINS, LABELS):
        accuracies = train(scratch, method, target, seed, labels)
        runs.append({"method": method, "target": target, "seed": seed, "labels": labels} | accuracies)
    means = {
        method: {
            labels: statistics.fmean(r["unseen"] for r in runs if (r["method"], r["labels"]) == (method, labels))
            for labels in LABELS
        }
        for method in METHODS
    }
    keep("cleaned_labels", {"circumstances": circumstances(SEEDS), "flipped": FLIPPED, "unseen": means, "runs": runs})


if __name__ == "__main__":
    main()
