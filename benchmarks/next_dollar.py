"""Can a run estimate what further queries would gain? Predicted against actual gain on unseen domains of PACS.

    python benchmarks/next_dollar.py --scratch /tmp/budget

The setting is that of `budget.py`: a linear map on frozen features, the dual loss, and a diverse set of queried images.
A run that has bought n embeddings leaves out each source domain in turn, fits the map to the other source domains with
0, 25, 50, 75 and 100% of the embeddings (three random orders), and measures the accuracy on the domain that was left
out. A straight line in the square root of the number of queries (a power law), or in its logarithm (without 0%), is
fitted to each domain's accuracies and extrapolated. The prediction is the mean over the source domains; its 95%
interval is Student's, for one further domain. It is compared with the actual gain on the held-out domain, which takes
no part in the prediction, if as many images again are queried, or all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t

from budget import SEEDS, SHARES, Arrays, Trial
from common import circumstances, keep, scratch_option
from suspects import prepared
from vl2v.analysis.selection import diverse

IMAGE_WEIGHT, PARTS, ORDERS = 0.5, (0.0, 0.25, 0.5, 0.75, 1.0), 3
Curve = NDArray[np.float64]
MODELS: dict[str, tuple[Callable[[Curve], Curve], int]] = {"square root": (np.sqrt, 0), "logarithm": (np.log, 1)}
"""The transformation of the number of queries, and the first of `PARTS` that is used."""


def left_out_curve(trial: Trial, queried: NDArray[np.bool_]) -> Curve:
    """Accuracy on each source domain that was left out, with each of `PARTS` of the embeddings, [sources, parts]."""
    purchased = np.flatnonzero(queried)
    curve = np.zeros((len(trial.groups), ORDERS, len(PARTS)))
    for source, left_out in enumerate(trial.groups):
        others = [group for group in trial.groups if group is not left_out]
        for order in range(ORDERS):
            turns = np.random.default_rng([trial.seed, order]).permutation(purchased)
            for i, part in enumerate(PARTS):
                if order and part in (0, 1):
                    curve[source, order, i] = curve[source, 0, i]
                    continue
                some = np.zeros(len(queried), bool)
                some[turns[: round(part * len(purchased))]] = True
                curve[source, order, i] = trial.fitted(some, IMAGE_WEIGHT, others)(trial.rows[left_out])
    return np.asarray(curve.mean(axis=1))


def predict(curve: Curve, queries: int, later: int, model: str) -> tuple[float, float]:
    """The gain that a model predicts for a further domain if `later` images are queried, and half its 95% interval."""
    transformed, first = MODELS[model]
    x = transformed(np.array(PARTS[first:]) * queries)
    step = float(transformed(np.array(later)) - transformed(np.array(queries)))
    gains = np.array([np.polyfit(x, line[first:], 1)[0] * step for line in curve])
    quantile = float(student_t.ppf(0.975, len(gains) - 1))
    return float(gains.mean()), quantile * float(gains.std(ddof=1)) * math.sqrt(1 + 1 / len(gains))


def measure(m: Arrays) -> list[dict[str, Any]]:
    """Predicted and actual gains: a line for each held-out domain, seed, share, purchase and model."""
    lines: list[dict[str, Any]] = []
    for target in range(4):
        for seed in SEEDS:
            trial = Trial(m, target, seed)
            features, domains = m["features"][trial.rows], m["domains"][trial.rows]
            for share in SHARES:
                queried = trial.choose("diverse", share)
                count, doubled = int(queried.sum()), queried.copy()
                doubled[diverse(features, domains, count, seed=seed, selected=queried)] = True
                curve = left_out_curve(trial, queried)
                now = trial.fitted(queried, IMAGE_WEIGHT)(trial.target)
                for purchase, later in {"as many again": doubled, "all": np.ones(len(queried), bool)}.items():
                    actual = trial.fitted(later, IMAGE_WEIGHT)(trial.target) - now
                    for model in MODELS:
                        gain, half = predict(curve, count, int(later.sum()), model)
                        where = {"purchase": purchase, "model": model, "share": share, "target": target, "seed": seed}
                        lines.append(where | {"actual": actual, "predicted": gain, "half": half})
    return lines


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How well the gains are predicted, in points, by purchase and model."""
    table = []
    for purchase, model in dict.fromkeys((one["purchase"], one["model"]) for one in lines):
        some = [one for one in lines if (one["purchase"], one["model"]) == (purchase, model)]
        actual, predicted, half = (100 * np.array([one[k] for one in some]) for k in ("actual", "predicted", "half"))
        error = predicted - actual
        row = {
            "actual, mean": actual.mean(),
            "predicted, mean": predicted.mean(),
            "error, root mean square": np.sqrt((error**2).mean()),
            "error of predicting 0, root mean square": np.sqrt((actual**2).mean()),
            "correlation": np.corrcoef(predicted, actual)[0, 1],
            "half width, median": np.median(half),
            "coverage": (np.abs(error) <= half).mean(),
            "intervals without 0": (np.abs(predicted) > half).mean(),
        }
        table.append({"purchase": purchase, "model": model} | {k: round(float(v), 3) for k, v in row.items()})
    return table


def main() -> None:
    """Measure, and write the figures."""
    scratch = scratch_option(__doc__)
    torch.set_num_threads(1)
    lines = measure(prepared(scratch, size=96, prompts="name"))
    keep("next_dollar", {"circumstances": circumstances(SEEDS), "summary": summary(lines), "lines": lines})


if __name__ == "__main__":
    main()
