"""Accuracy on unseen domains against the share of the training images that are queried: at random, and diverse.

    python benchmarks/budget.py --scratch /tmp/budget

A cheap proxy: no network is trained. A linear map from the frozen student's features, reduced to their principal
components on the source domains, is fitted in closed form as Align is (`vl2v.method.ridge`), and classifies by the text
head. Each PACS domain in turn is held out, with three seeds. Two losses are measured: the dual loss, in which images
that are not queried learn from their labels alone, as in a run with ``when_short: choose``; and the image term alone on
the queried images, which shows what the choice itself is worth. The images, the simulated vendor and the student come
from the maintainers' folder (see `common.shared`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import circumstances, keep, scratch_option
from suspects import material
from vl2v.analysis.selection import diverse
from vl2v.data.splits import domainbed_holdout
from vl2v.method.ridge import dual_targets, ridge, term_weights

SEEDS, SHARES, COMPONENTS, STRENGTH = (0, 1, 2), (0.02, 0.05, 0.1, 0.3), 320, 0.3
WAYS, LOSSES = ("random", "diverse"), {"labels and queries": 0.5, "queries alone": 1.0}
Arrays = dict[str, NDArray[Any]]


class Trial:
    """One held-out domain and one seed."""

    def __init__(self, m: Arrays, target: int, seed: int) -> None:
        self.m, self.seed, rows, validation = m, seed, [], []
        for domain in range(4):
            of_domain = np.flatnonzero(m["domains"] == domain)
            kept, out = domainbed_holdout(len(of_domain), seed, domain, 0.2)
            if domain != target:
                rows.append(of_domain[kept])
                validation.append(of_domain[out])
        self.rows, self.target = np.concatenate(rows), np.flatnonzero(m["domains"] == target)
        self.validation = validation
        ends = np.cumsum([len(part) for part in rows])
        self.groups = np.split(np.arange(len(self.rows)), ends[:-1])
        features = m["features"].astype(np.float64)
        centred = features - features[self.rows].mean(axis=0)
        _, directions = np.linalg.eigh(centred[self.rows].T @ centred[self.rows])
        self.x = centred @ directions[:, -COMPONENTS:]

    def choose(self, way: str, share: float) -> NDArray[np.bool_]:
        """Which training images are queried, [R] bool."""
        count, queried = round(share * len(self.rows)), np.zeros(len(self.rows), bool)
        if way == "random":
            queried[np.random.default_rng(self.seed).permutation(len(self.rows))[:count]] = True
        else:
            domains = self.m["domains"][self.rows]
            queried[diverse(self.m["features"][self.rows], domains, count, seed=self.seed)] = True
        return queried

    def accuracies(self, queried: NDArray[np.bool_], image_weight: float) -> dict[str, float]:
        """Accuracy on the held-out domain, and the mean over the validation images of the source domains."""
        m, labels = self.m, self.m["labels"][self.rows]
        embeddings = np.where(queried[:, None], m["embeddings"][self.rows], 0.0)
        image, text = term_weights(self.groups, (1, 1, 1), np.ones(len(labels), bool))
        targets, weights = dual_targets(embeddings, m["head"][labels], image, text, image_weight)
        weight, bias = ridge([(self.x[self.rows], targets, weights)], STRENGTH)

        def accuracy(rows: NDArray[np.int64]) -> float:
            answers = ((self.x[rows] @ weight.T + bias) @ m["head"].T).argmax(axis=1)
            return float((answers == m["labels"][rows]).mean())

        return {"unseen": accuracy(self.target), "validation": float(np.mean([accuracy(v) for v in self.validation]))}


def measure(m: Arrays) -> list[dict[str, Any]]:
    """All accuracies, one line for each loss, way, share, held-out domain and seed."""
    lines: list[dict[str, Any]] = []
    for target in range(4):
        for seed in SEEDS:
            trial = Trial(m, target, seed)
            every = np.ones(len(trial.rows), bool)
            parts = [("all", 1.0, every), ("none", 0.0, ~every)]
            parts += [(way, share, trial.choose(way, share)) for way in WAYS for share in SHARES]
            for loss, weight in LOSSES.items():
                for way, share, queried in parts:
                    if weight < 1 or share:
                        found = trial.accuracies(queried, weight)
                        lines.append({"loss": loss, "way": way, "share": share, "target": target, "seed": seed} | found)
    return lines


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over held-out domains and seeds in percent, and the differences to random and to all, with their errors."""

    def values(loss: str, way: str, share: float, column: str) -> NDArray[np.float64]:
        key = (loss, way, share)
        return np.array([100 * one[column] for one in lines if (one["loss"], one["way"], one["share"]) == key])

    table = []
    for loss, way, share in dict.fromkeys((one["loss"], one["way"], one["share"]) for one in lines):
        row: dict[str, Any] = {"loss": loss, "way": way, "share": share}
        for column in ("unseen", "validation"):
            mine = values(loss, way, share, column)
            row[column] = round(float(mine.mean()), 2)
            for other, of_share in (("random", share), ("all", 1.0)):
                if way not in ("all", other) and len(theirs := values(loss, other, of_share, column)):
                    gap = mine - theirs
                    error = float(gap.std(ddof=1)) / math.sqrt(len(gap))
                    row[f"{column} minus {other}"] = [round(float(gap.mean()), 2), round(error, 2)]
        table.append(row)
    return table


def main() -> None:
    """Measure, and write the figures."""
    scratch = scratch_option(__doc__)
    torch.set_num_threads(1)
    lines = measure(material(scratch, size=96, prompts="name"))
    keep("budget", {"circumstances": circumstances(SEEDS), "summary": summary(lines), "lines": lines})


if __name__ == "__main__":
    main()
