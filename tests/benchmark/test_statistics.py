from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vl2v.benchmark.statistics import Difference, Spread, paired
from vl2v.errors import MissingExtraError

accuracies = st.floats(0, 1).map(lambda value: round(value, 3))
pairs = st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=8)


def test_the_error_is_that_of_the_mean() -> None:
    spread = Spread.of([0.1, 0.2, 0.6])
    assert spread.mean == pytest.approx(0.3)
    deviation = math.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2)
    assert spread.error == pytest.approx(deviation / math.sqrt(3))
    assert str(spread) == "30.0 ± 15.3"
    assert str(Spread.of([0.5])) == "50.0"


@given(st.lists(accuracies, min_size=2, max_size=12))
def test_mean_and_error_are_those_of_numpy_and_scipy(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(float(np.mean(values)))
    assert spread.error == pytest.approx(float(stats.sem(values, ddof=1)), abs=1e-12)
    assert spread.count == len(values)


@given(pairs)
def test_the_paired_tests_are_those_of_scipy(values: list[tuple[float, float]]) -> None:
    first, second = [a for a, _ in values], [b for _, b in values]
    difference = Difference.of(first, second)
    assert difference.spread.mean == pytest.approx(float(np.mean(first) - np.mean(second)), abs=1e-12)
    differences = np.subtract(first, second)
    if np.ptp(differences) <= 1e-9:
        assert math.isnan(difference.p)
    else:
        assert difference.p == pytest.approx(float(stats.ttest_rel(first, second).pvalue), rel=1e-6)
    thousandths = np.round(1000 * differences)  # scipy counts patterns by equality, which rounding would spoil
    exact = stats.permutation_test((thousandths,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert difference.p_exact == pytest.approx(float(exact.pvalue))


def test_three_pairs_are_never_significant_in_the_exact_test() -> None:
    difference = Difference.of([0.9, 0.91, 0.92], [0.1, 0.11, 0.13])
    assert difference.p_exact == 0.25
    assert difference.p < 0.001


def test_too_few_or_equal_differences_have_no_t_test() -> None:
    assert math.isnan(Difference.of([0.3], [0.1]).p)
    assert math.isnan(Difference.of([0.3, 0.4], [0.2, 0.3]).p)


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"vl2v\[benchmark\]"):
        Difference.of([0.3, 0.5], [0.2, 0.3])


def test_only_keys_of_both_are_compared() -> None:
    difference = paired({"a": 0.5, "b": 0.7, "c": 0.9}, {"b": 0.6, "c": 0.7, "d": 0.0})
    assert difference is not None
    assert difference.spread.count == 2
    assert difference.spread.mean == pytest.approx(0.15)
    assert paired({"a": 0.5}, {"b": 0.5}) is None
