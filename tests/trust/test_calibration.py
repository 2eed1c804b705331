from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vl2v.trust.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature, reliability
from vl2v_runtime.trust import probabilities


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Return the mean negative log-likelihood with labels smoothed by 1 / (N + 2), computed by torch."""
    smooth = 1 / (len(labels) + 2)
    scaled = torch.from_numpy(logits / temperature)
    return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels), label_smoothing=smooth))


def test_the_temperature_agrees_with_a_computation_by_hand() -> None:
    """Two classes, logits 6 and 0, 75% right: T = 6 / log 3, but for the smoothing."""
    labels = np.repeat([0, 1], [7500, 2500])
    logits = np.tile([6.0, 0.0], (10_000, 1))
    assert fit_temperature(logits, labels) == pytest.approx(6 / np.log(3), rel=1e-3)
    assert probabilities(logits, fit_temperature(logits, labels))[0, 0] == pytest.approx(0.75, abs=1e-3)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 60), st.integers(2, 6), st.floats(0.1, 30), st.integers(0, 2**31))
def test_no_other_temperature_is_likelier(count: int, classes: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(scale=scale, size=(count, classes)), rng.integers(0, classes, count)
    temperature = fit_temperature(logits, labels)
    assert MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
    assert all(
        loss(logits, labels, temperature)
        <= loss(logits, labels, min(max(temperature * f, MIN_TEMPERATURE), MAX_TEMPERATURE)) + 1e-9
        for f in (0.5, 0.9, 0.99, 1.01, 1.1, 2)
    )


def test_a_few_correct_images_do_not_give_certainty() -> None:
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    temperature = fit_temperature(logits, np.array([0, 1, 0]))
    assert probabilities(logits, temperature)[0, 0] == pytest.approx(0.9, abs=1e-3)  # 1 - 1 / 5 + 1 / 10


def test_the_temperature_is_bounded_and_one_without_images() -> None:
    assert fit_temperature(np.array([[5.0, 0.0]] * 4), np.ones(4, int)) == pytest.approx(MAX_TEMPERATURE)
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    assert fit_temperature(np.ones((4, 1)), np.zeros(4, int)) == 1.0
    assert MIN_TEMPERATURE <= fit_temperature(np.ones((4, 3)), np.zeros(4, int)) <= MAX_TEMPERATURE  # uninformative


def test_a_constant_per_image_does_not_change_the_temperature() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    assert fit_temperature(logits + 100, labels) == pytest.approx(fit_temperature(logits, labels))


def test_reliability_agrees_with_a_computation_by_hand() -> None:
    rows = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
    table = reliability(rows, [0, 1, 1, 1], bins=5)
    assert table.count.tolist() == [0, 0, 0, 1, 3]  # 0.6 opens its bin, 1 closes the last
    assert table.accuracy[3:] == pytest.approx([1, 2 / 3])
    assert table.confidence[3:] == pytest.approx([0.6, 2.8 / 3])
    assert table.error == pytest.approx((0.4 + 0.8) / 4)
    assert reliability(np.zeros((0, 3)), []).error == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 8))
def test_error_agrees_with_torchmetrics(seed: int, classes: int) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(seed)
    rows, labels = probabilities(rng.normal(scale=2, size=(200, classes))), rng.integers(0, classes, 200)
    expected = metrics.multiclass_calibration_error(
        torch.from_numpy(rows), torch.from_numpy(labels), num_classes=classes, n_bins=15
    )
    assert reliability(rows, labels).error == pytest.approx(float(expected), abs=1e-4)
