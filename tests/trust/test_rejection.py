from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vl2v.trust.rejection import COVERAGES, risk_coverage, thresholds
from vl2v_runtime.trust import Trust

SCORES = st.lists(st.integers(0, 20).map(lambda v: v / 4), min_size=1, max_size=60)


def test_the_curve_agrees_with_a_computation_by_hand() -> None:
    curve = risk_coverage([0.9, 0.2, 0.7, 0.7], [True, False, True, False])
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]  # the two images with score 0.7 are accepted together
    assert curve.risk == pytest.approx([0, 1 / 3, 1 / 2])
    assert curve.threshold.tolist() == [0.9, 0.7, 0.2]
    assert curve.area == pytest.approx(0.5 * 1 / 3 + 0.25 * 1 / 2)
    assert curve.at(0.25) == 0
    assert curve.at(0.5) == pytest.approx(1 / 3)
    assert curve.at(1.0) == 0.5


@settings(deadline=None)
@given(SCORES, st.integers(0, 2**31))
def test_coverage_increases_and_the_curve_ends_at_the_error_rate(scores: list[float], seed: int) -> None:
    right = np.random.default_rng(seed).random(len(scores)) < 0.6
    curve = risk_coverage(scores, right)
    assert (np.diff(curve.coverage) > 0).all()
    assert (np.diff(curve.threshold) < 0).all()
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(1 - right.mean())
    assert 0 <= curve.area <= 1


def test_informative_scores_are_better_than_random_scores() -> None:
    right = np.arange(100) < 80
    knowing, blind = risk_coverage(-np.arange(100.0), right).area, risk_coverage(np.zeros(100), right).area
    assert knowing < 0.03
    assert blind == pytest.approx(0.2)


@pytest.mark.parametrize(("scores", "right"), [([], []), ([1.0], [True, False]), ([[1.0]], [[True]])])
def test_wrong_inputs_are_named(scores: list[float], right: list[bool]) -> None:
    with pytest.raises(ValueError, match="N at least 1"):
        risk_coverage(scores, right)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**31))
def test_the_accepted_share_of_the_fitted_images_is_the_coverage(count: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    unfitted = Trust(1.0, {})
    fitted = Trust(1.0, {score: thresholds(unfitted.scores(logits, score)) for score in ("confidence", "energy")})
    for score in ("confidence", "energy"):
        for coverage in COVERAGES:
            share = fitted.accepts(logits, score, coverage).mean()
            assert coverage - 1e-9 <= share < coverage + 1 / count + 1e-9
