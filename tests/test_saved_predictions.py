"""The predictions that a run saves, in half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vl2v.evaluation.predictions import read_predictions
from vl2v.evaluation.split import DomainPredictions, save_predictions


def test_rounding_does_not_change_the_most_probable_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(30, 5, (2_000, 1)).astype(np.float32) + rng.normal(0, 0.01, (2_000, 5)).astype(np.float32)
    logits[0] = 1e6, 2e6, -1e6, -2e6, 0  # larger than the largest number in half precision
    labels = np.zeros(len(logits), np.int64)
    part = DomainPredictions("a", "in-domain", [f"{i}.png" for i in range(len(logits))], labels, logits, None)
    save_predictions([part], tmp_path / "predictions.npz")
    predictions = read_predictions(tmp_path / "predictions.npz")
    rounded = logits[1:].astype(np.float16)
    assert (rounded.argmax(axis=1) != logits[1:].argmax(axis=1)).sum() > 100, "rounding alone does"
    assert np.array_equal(predictions.answers, logits.argmax(axis=1))
    assert np.isfinite(predictions.student).all()
    assert np.abs(predictions.student - logits)[1:].max() < 0.1
