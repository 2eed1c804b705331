"""A mean over seeds with its standard error, and a paired comparison of two methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vl2v.errors import MissingExtraError

Key = TypeVar("Key")
EXACT_UP_TO = 16  # pairs, which have 2 ** 16 sign patterns


@dataclass(frozen=True)
class Spread:
    """A mean over seeds.

    Attributes:
        mean: mean, in the unit of the values (accuracies in [0, 1]).
        error: standard error of the mean, with n - 1 degrees of freedom; NaN for a single value.
        count: number of values.
    """

    mean: float
    error: float
    count: int = 1

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute the spread of at least one value."""
        count = len(values)
        error = math.nan if count < 2 else statistics.stdev(values) / math.sqrt(count)
        return cls(statistics.fmean(values), error, count)

    @property
    def percent(self) -> Spread:
        """The spread in percent."""
        return Spread(100 * self.mean, 100 * self.error, self.count)

    @property
    def ends(self) -> tuple[float, float]:
        """The mean minus and plus its error; NaN for a single value."""
        return self.mean - self.error, self.mean + self.error

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}" + ("" if math.isnan(self.error) else f" ± {100 * self.error:.1f}")


@dataclass(frozen=True)
class Difference:
    """Paired difference between two methods.

    Attributes:
        spread: mean difference, its standard error and the number of pairs.
        p: two-sided p-value of a paired t-test; NaN for a single pair, or if all differences are the same.
        p_exact: two-sided p-value of the exact sign-flip permutation test; NaN above `EXACT_UP_TO` pairs. It assumes no
            normality and is never below 2 ** (1 - pairs): 0.25 with three pairs, so three seeds alone prove nothing.
    """

    spread: Spread
    p: float
    p_exact: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
        """Compare two sequences of the same length, at least one pair.

        Raises:
            MissingExtraError: if scipy is not installed.
        """
        differences = [a - b for a, b in zip(ours, theirs, strict=True)]
        return cls(Spread.of(differences), _t_test(differences), _sign_flip(differences))


def paired(ours: Mapping[Key, float], theirs: Mapping[Key, float]) -> Difference | None:
    """Compare two methods on their common keys; None if there are none."""
    keys = [key for key in ours if key in theirs]
    return Difference.of([ours[key] for key in keys], [theirs[key] for key in keys]) if keys else None


def _t_test(differences: Sequence[float]) -> float:
    # If all differences are equal, their variance is rounding error, and the p-value would be close to 0.
    if max(differences) - min(differences) <= 1e-12:
        return math.nan
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError("A paired t-test", "benchmark", "scipy") from error
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _sign_flip(differences: Sequence[float]) -> float:
    """Return the share of sign patterns whose mean is at least as far from zero as the observed one."""
    if len(differences) > EXACT_UP_TO:
        return math.nan
    count = len(differences)
    signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)  # [patterns, pairs], every one once
    observed = abs(math.fsum(differences)) - 1e-12  # so that the observed pattern counts in spite of rounding
    return float(np.mean(np.abs(signs @ np.array(differences)) >= observed))
