"""Accuracy on unseen domains against the share of the training images that are queried: random, diverse, in rounds.

    python benchmarks/budget.py --scratch /tmp/budget

A cheap proxy: no network is trained. A linear map from the frozen student's features, reduced to their principal
components on the source domains, is fitted in closed form as Align is (`vl2v.method.ridge`), and classifies by the text
head. Each PACS domain in turn is held out, with three seeds. Two losses are measured: the dual loss, in which images
that are not queried learn from their labels alone, as in a run with ``when_short: choose``; and the image term alone on
the queried images, which shows what the choice itself is worth.

Rounds query half of the share as a diverse set, and the rest in three parts, each a diverse set of the images on which
two linear maps are expected to disagree most (see `Trial.disagreement`). Every image costs the same, so most per cent
is most per image. The images, the simulated vendor and the student come from the maintainers' folder (see
`common.shared`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import circumstances, keep, scratch_option
from suspects import prepared
from vl2v.analysis.selection import diverse
from vl2v.data.splits import domainbed_holdout
from vl2v.method.ridge import dual_targets, ridge, term_weights

SEEDS, SHARES, COMPONENTS, STRENGTH = (0, 1, 2), (0.02, 0.05, 0.1, 0.3), 320, 0.3
WAYS = ("random", "diverse", "rounds by answers", "rounds by labels")
FIRST, ROUNDS, POOL, FOLDS, NEAREST = 0.5, 3, 3, 5, 10  # of rounds; the pool has that many candidates per image
LOSSES = {"labels and queries": 0.5, "queries alone": 1.0}
Arrays = dict[str, NDArray[Any]]


class Trial:
    """One held-out domain and one seed."""

    def __init__(self, m: Arrays, target: int, seed: int) -> None:
        self.m, self.seed, rows, validation = m, seed, [], []
        for domain in range(4):
            of_domain = np.flatnonzero(m["domains"] == domain)
            train, out = domainbed_holdout(len(of_domain), seed, domain, 0.2)
            if domain != target:
                rows.append(of_domain[train])
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
            return queried
        self._query(queried, ~queried, count if way == "diverse" else max(6, round(FIRST * count)))
        for turn in range(ROUNDS if way != "diverse" else 0):
            part = math.ceil((count - int(queried.sum())) / (ROUNDS - turn))
            scores = np.where(queried, -np.inf, self.disagreement(queried, way))
            pool = np.zeros(len(queried), bool)
            pool[np.argsort(-scores, kind="stable")[: min(POOL * part, int((~queried).sum()))]] = True
            self._query(queried, pool, part)
        return queried

    def _query(self, queried: NDArray[np.bool_], pool: NDArray[np.bool_], count: int) -> None:
        """Mark a diverse set of a pool as queried."""
        rows = np.flatnonzero(pool)
        images = self.rows[rows]
        chosen = diverse(self.m["features"][images], self.m["domains"][images], count, seed=self.seed)
        queried[rows[chosen]] = True

    def disagreement(self, queried: NDArray[np.bool_], way: str) -> NDArray[np.float64]:
        """Return the expected information of each training image, [R], computed from purchased embeddings only.

        ``rounds by answers``: 1 - cosine of the purchased embedding and the prediction of a map that was fitted on
        other purchased embeddings (5 folds); for every image, the mean over its 10 nearest purchased images.
        ``rounds by labels``: 1 - cosine of the predictions of a map that was fitted on the purchased embeddings, and of
        one that was fitted on the class texts of the labels of other images (5 folds).
        """
        x, purchased = self.x[self.rows], np.flatnonzero(queried)
        embeddings, texts = self.m["embeddings"][self.rows[purchased]], self.m["head"][self.m["labels"][self.rows]]
        if way == "rounds by answers":
            gaps = 1 - (self._left_out(x[purchased], embeddings) * _unit(embeddings)).sum(axis=1)
            similar = _unit(x) @ _unit(x[purchased]).T
            nearest = np.argpartition(-similar, min(NEAREST, len(purchased) - 1), axis=1)[:, :NEAREST]
            return np.asarray(gaps[nearest].mean(axis=1))
        answers = _predicted(x[purchased], embeddings, x)
        return np.asarray(1 - (answers * self._left_out(x, texts)).sum(axis=1))

    def _left_out(self, x: NDArray[np.float64], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Predictions for each row by a map that was fitted on the other folds."""
        fold = np.random.default_rng([self.seed, 7]).permutation(len(x)) % FOLDS
        predicted = np.zeros((len(x), targets.shape[1]))
        for left in range(FOLDS):
            predicted[fold == left] = _predicted(x[fold != left], targets[fold != left], x[fold == left])
        return predicted

    def fitted(
        self, queried: NDArray[np.bool_], image_weight: float, domains: Sequence[NDArray[np.int64]] | None = None
    ) -> Callable[[NDArray[np.int64]], float]:
        """Fit the linear map to some source domains, or all; returns its accuracy as a function of rows."""
        domains = self.groups if domains is None else domains
        part, ends = np.concatenate(domains), np.cumsum([len(domain) for domain in domains])
        m, rows, groups = self.m, self.rows[part], np.split(np.arange(len(part)), ends[:-1])
        embeddings = np.where(queried[part, None], m["embeddings"][rows], 0.0)
        image, text = term_weights(groups, [1] * len(groups), np.ones(len(rows), bool))
        targets, weights = dual_targets(embeddings, m["head"][m["labels"][rows]], image, text, image_weight)
        weight, bias = ridge([(self.x[rows], targets, weights)], STRENGTH)

        def accuracy(tested: NDArray[np.int64]) -> float:
            answers = ((self.x[tested] @ weight.T + bias) @ m["head"].T).argmax(axis=1)
            return float((answers == m["labels"][tested]).mean())

        return accuracy

    def accuracies(self, queried: NDArray[np.bool_], image_weight: float) -> dict[str, float]:
        """Accuracy on the held-out domain, and the mean over the validation images of the source domains."""
        accuracy = self.fitted(queried, image_weight)
        return {"unseen": accuracy(self.target), "validation": float(np.mean([accuracy(v) for v in self.validation]))}


def _unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _predicted(x: NDArray[np.float64], targets: NDArray[Any], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Predictions of unit length for other rows."""
    weight, bias = ridge([(x, _unit(targets.astype(np.float64)), np.ones(len(x)))], STRENGTH)
    return _unit(others @ weight.T + bias)


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
                        accuracies_of_trial = trial.accuracies(queried, weight)
                        lines.append(
                            {"loss": loss, "way": way, "share": share, "target": target, "seed": seed}
                            | accuracies_of_trial
                        )
    return lines


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over held-out domains and seeds in percent, and the differences to other ways, with their errors."""

    def values(loss: str, way: str, share: float, column: str) -> NDArray[np.float64]:
        key = (loss, way, share)
        return np.array([100 * one[column] for one in lines if (one["loss"], one["way"], one["share"]) == key])

    table = []
    for loss, way, share in dict.fromkeys((one["loss"], one["way"], one["share"]) for one in lines):
        row: dict[str, Any] = {"loss": loss, "way": way, "share": share}
        for column in ("unseen", "validation"):
            of_way = values(loss, way, share, column)
            row[column] = round(float(of_way.mean()), 2)
            for other, of_share in (("random", share), ("diverse", share), ("all", 1.0)):
                if way not in ("all", other) and len(of_other := values(loss, other, of_share, column)):
                    gap = of_way - of_other
                    error = float(gap.std(ddof=1)) / math.sqrt(len(gap))
                    row[f"{column} minus {other}"] = [round(float(gap.mean()), 2), round(error, 2)]
        table.append(row)
    return table


def main() -> None:
    """Measure, and write the figures."""
    scratch = scratch_option(__doc__)
    torch.set_num_threads(1)
    lines = measure(prepared(scratch, size=96, prompts="name"))
    keep("budget", {"circumstances": circumstances(SEEDS), "summary": summary(lines), "lines": lines})


if __name__ == "__main__":
    main()
