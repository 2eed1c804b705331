from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vl2v_runtime.drift import Reference
from vl2v_runtime.trust import Trust, probabilities, scores, softmax

LOGITS = arrays(np.float64, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=st.floats(-200, 200, width=32))
TEMPERATURES = st.floats(0.01, 100)
E1, E2, E3 = np.eye(3)


def trust_of(reference: Reference | None = None, temperature: float = 2.0) -> Trust:
    reject = {"confidence": {0.95: 0.5, 0.8: 0.8}, "energy": {0.95: 1.0, 0.8: 2.0}}
    return Trust(temperature, reject, {"images": 10, "ece_before": 0.2, "ece_after": 0.1}, reference)


def reference_of() -> Reference:
    return Reference(
        names=("ink", "neon"), images=(20, 30), spreads=np.array([0.1, 0.3]), centres=np.stack([E1, E2, E3]),
        domain=np.array([0, 0, 1]), level=0.01, sizes=(1, 4), expected=(1.0, 1.0), limit=(2.0, 3.0),
    )  # fmt: skip


def test_probabilities_and_scores_agree_with_a_computation_by_hand() -> None:
    logits = [[2 * np.log(3), 0.0]]  # at temperature 2: log 3 and 0
    assert np.allclose(probabilities(logits, 2.0), [[0.75, 0.25]])
    assert scores(logits, "confidence", 2.0) == pytest.approx([0.75])
    assert scores(logits, "energy", 2.0) == pytest.approx([2 * np.log(4)])
    assert probabilities(logits).dtype == np.float32


@settings(deadline=None)
@given(LOGITS, TEMPERATURES)
def test_temperature_does_not_change_the_order_of_the_classes(logits: np.ndarray, temperature: float) -> None:
    probability = probabilities(logits, temperature)
    assert probability.shape == logits.shape
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)
    top = np.take_along_axis(probability, logits.argmax(axis=1)[:, None], axis=1)
    assert (top == probability.max(axis=1, keepdims=True)).all()
    assert np.allclose(scores(logits, "confidence", temperature), probability.max(axis=1), rtol=1e-5)


def test_softmax_accepts_minus_infinity() -> None:
    probability = softmax(np.array([[0.0, -np.inf, np.log(3)]]))
    assert probability.dtype == np.float64
    assert probability == pytest.approx(np.array([[0.25, 0, 0.75]]))
    assert np.array_equal(probabilities([[1.0, 2.0]]), softmax([[1.0, 2.0]]).astype(np.float32))


def test_extreme_logits_do_not_overflow() -> None:
    logits = np.array([[1e6, 0.0], [-1e6, -1e6]])
    assert np.array_equal(probabilities(logits, 0.01), np.array([[1, 0], [0.5, 0.5]], np.float32))
    assert np.isfinite(scores(logits, "energy", 0.01)).all()


def test_scores_above_the_threshold_are_accepted() -> None:
    trust, sure = trust_of(temperature=1.0), np.log(3)
    logits = [[0.0, 0.0], [sure, 0.0], [10.0, 0.0], [np.nan, 0.0]]
    assert trust.accepts(logits, coverage=0.8).tolist() == [False, False, True, False]  # 0.75 is below 0.8
    assert trust.accepts(logits, coverage=0.95).tolist() == [True, True, True, False]
    assert trust.accepts(logits, "energy", 0.8).tolist() == [False, False, True, False]
    assert trust.accepts(np.array([[-50.0]]), coverage=1).tolist() == [True]
    assert trust.accepts(np.zeros((0, 2))).shape == (0,)
    assert trust.coverages == (0.95, 0.8)


def test_one_class_and_no_image_are_valid() -> None:
    trust = trust_of()
    assert trust.probabilities([[3.0], [-3.0]]).tolist() == [[1.0], [1.0]]
    assert trust.probabilities(np.zeros((0, 4))).shape == (0, 4)
    assert trust.scores(np.zeros((0, 4)), "energy").shape == (0,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: trust_of().accepts([[1.0]], "entropy"), "confidence or energy"),
        (lambda: scores([[1.0]], "entropy"), "confidence or energy"),
        (lambda: trust_of().accepts([[1.0]], coverage=0.5), "1, 0.95, 0.8"),
        (lambda: probabilities([1.0, 2.0]), r"\[N, K\]"),
        (lambda: probabilities(np.zeros((3, 0))), "at least 1"),
        (lambda: trust_of(temperature=0.0), "above 0"),
        (lambda: trust_of(temperature=float("nan")), "above 0"),
        (lambda: trust_of(reference_of()).drift(np.zeros((2, 5))), r"\[N, 3\]"),
        (lambda: trust_of(reference_of()).drift([[np.nan, 0, 0]]), "finite"),
    ],
)
def test_wrong_inputs_are_named(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_drift_agrees_with_a_computation_by_hand() -> None:
    reference = reference_of()
    drift = reference.of([E1, E1 + 0.1 * E3])  # residuals 0 and 0.1: mean 0.05
    assert (drift.nearest, drift.images, drift.unusual) == ("ink", 2, False)
    assert drift.distance == pytest.approx(0.05)
    assert drift.expected == pytest.approx(0.1 / np.sqrt(2))
    assert drift.limit == pytest.approx(2.5 * 0.1 / np.sqrt(2))  # size 2 is halfway between log 1 and log 4
    single = reference.of([E3 + 0.7 * E2])
    assert (single.nearest, single.unusual) == ("neon", True)  # 0.7 above 2 times 0.3
    assert "unlike the training domains: 1 image" in single.text
    assert "2 images" in drift.text


def test_a_mixture_of_domains_and_classes_is_not_drift() -> None:
    drift = reference_of().of([E1, E2, E3, E1])
    assert drift.distance == 0
    assert not drift.unusual


def test_a_large_batch_is_judged_like_the_largest_measured_one() -> None:
    reference = reference_of()
    assert reference.of([E1] * 400).limit == pytest.approx(reference.of([E1] * 4).limit)


def test_without_images_or_reference_there_is_no_drift() -> None:
    drift = reference_of().of(np.zeros((0, 3)))
    assert (drift.unusual, drift.images) == (False, 0)
    assert "no image" in drift.text
    assert trust_of().drift([E1]) is None


def test_trust_data_survive_conversion_to_plain_values() -> None:
    trust = trust_of(reference_of())
    content = trust.to_dict()
    again = Trust.from_dict(content)
    assert again.to_dict() == content
    assert content["reject"]["confidence"] == {"0.95": 0.5, "0.8": 0.8}
    assert again.reference is not None
    assert again.reference.of([E2 * 0.9]) == reference_of().of([E2 * 0.9])


def _without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != key}


@pytest.mark.parametrize(
    "broken",
    [
        None, [], {}, {"format": 2},
        _without(trust_of().to_dict(), "temperature"),
        _without(trust_of().to_dict(), "reject"),
        _without(trust_of(reference_of()).to_dict(), "drift"),
        trust_of().to_dict() | {"reject": {"confidence": [], "energy": {}}},
        trust_of().to_dict() | {"temperature": -1},
        trust_of(reference_of()).to_dict() | {"domains": {"ink": {"images": 2}}},
        trust_of(reference_of()).to_dict()
        | {"drift": {"level": 0.01, "sizes": [4, 1], "expected": [1, 1], "limit": [1, 1]}},
        trust_of(reference_of()).to_dict()
        | {"drift": {"level": 0.01, "sizes": [1], "expected": [1, 1], "limit": [1, 1]}},
    ],
)  # fmt: skip
def test_broken_trust_data_are_refused(broken: Any) -> None:
    with pytest.raises(ValueError, match=r"trust|drift|temperature"):
        Trust.from_dict(broken)


@pytest.mark.parametrize("key", ["reject", "calibration"])
def test_more_values_than_a_report_can_show_are_refused(key: str) -> None:
    content, many = trust_of().to_dict(), {f"0.{i:06}": 0.5 for i in range(1000)}
    content[key] = content[key] | {"confidence": many} if key == "reject" else many
    with pytest.raises(ValueError, match=r"1,000 .* at most 100"):
        Trust.from_dict(content)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**31))
def test_drift_does_not_depend_on_the_order_of_a_batch(count: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(count, 3))
    one, other = reference_of().of(rows), reference_of().of(rows[::-1])
    assert one.distance == pytest.approx(other.distance)
    assert one.limit == pytest.approx(other.limit)
    assert one.nearest == other.nearest


def test_the_runtime_needs_no_torch() -> None:
    code = "import sys, vl2v_runtime.trust; sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'vl2v')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
