"""The ridge regression that fits a projection again stays close to the present one if there are few images."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from vl2v.method.ridge import Block, Floats, refit, ridge

GENERATOR = np.random.default_rng(0)
MAP = GENERATOR.normal(size=(4, 6))
START, SHIFT = MAP + GENERATOR.normal(size=(4, 6)), GENERATOR.normal(size=4)


def rows(count: int) -> list[Block]:
    """Rows whose targets follow another map than the present one, in two blocks."""
    generator = np.random.default_rng(1)
    features = generator.normal(size=(count, 6))
    targets = features @ MAP.T + 0.1
    weights = generator.uniform(0.5, 1.5, size=count)
    return [(features[part], targets[part], weights[part]) for part in (slice(0, count // 2), slice(count // 2, None))]


def direction(weight: Floats) -> Floats:
    return weight / np.linalg.norm(weight)


def fitted(count: int, prior: float) -> tuple[Floats, Floats]:
    return refit(partial(rows, count), START, SHIFT, prior)


def test_without_a_prior_it_is_the_ridge_regression_without_a_penalty() -> None:
    weight, bias = fitted(100, 1e-9)
    expected_weight, expected_bias = ridge(rows(100), 1e-12)
    assert np.allclose(weight, expected_weight, atol=1e-6)
    assert np.allclose(bias, expected_bias, atol=1e-6)


def test_a_large_prior_keeps_the_direction_of_the_present_map() -> None:
    weight, _ = fitted(100, 1e12)
    assert abs(float((direction(weight) * direction(START)).sum())) == pytest.approx(1, abs=1e-6)


def test_the_more_images_the_more_the_map_changes() -> None:
    solution = direction(ridge(rows(4000), 1e-9)[0])
    distances = [np.linalg.norm(direction(fitted(count, 100)[0]) - solution) for count in (10, 40, 160, 4000)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 3 * distances[-1]


def test_a_scaled_map_leads_to_the_same_result() -> None:
    weight, bias = refit(partial(rows, 50), 7 * START, 7 * SHIFT, 30)
    expected_weight, expected_bias = fitted(50, 30)
    assert np.allclose(weight, expected_weight)
    assert np.allclose(bias, expected_bias)


def test_a_map_of_zeros_and_rows_without_weight_are_refused() -> None:
    with pytest.raises(ValueError, match="not zero"):
        refit(partial(rows, 50), 0 * START, 0 * SHIFT, 30)
    with pytest.raises(ValueError, match="weight above 0"):
        refit(lambda: [(x, d, 0 * m) for x, d, m in rows(50)], START, SHIFT, 30)
