"""The arithmetic of an expected accuracy, on domains that are drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vl2v.analysis.changed_images import VIEWS, apply_change
from vl2v.analysis.expected import (
    AGREEMENT,
    BOTH,
    CONFIDENCE,
    Calibration,
    Distances,
    Images,
    LabelledSignals,
    Probe,
    Signals,
    calibrate,
    inverse_logit,
)

CLASSES, SIZE = 3, 12
LOGIT = np.log(4.0)  # of 80%


def domain(generator: np.random.Generator, images: int, number: int, spread: float = 0.5) -> Images:
    """Return a domain with shifted classes; features of the student are those of the backbone with less noise."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, SIZE)) + generator.normal(size=(CLASSES, SIZE)) * spread
    labels = generator.integers(CLASSES, size=images)
    frozen = (centres[labels] + generator.normal(size=(images, SIZE))).astype(np.float32)
    features = (centres[labels] + generator.normal(size=(images, SIZE)) * 0.8).astype(np.float32)
    zeros = np.zeros(images, np.int64)
    return Images(features, frozen, labels, zeros + number, zeros)


def joined(parts: list[Images]) -> Images:
    names = ("features", "frozen", "labels", "domain", "view")
    return Images(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def test_most_intervals_contain_the_accuracy_on_a_domain_that_was_not_seen() -> None:
    covered, errors = [], []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        sources = joined([domain(generator, 60, number) for number in range(3)])
        new = domain(generator, 200, 3)
        student, probe = (
            Probe(sources.features, sources.labels, CLASSES),
            Probe(sources.frozen, sources.labels, CLASSES),
        )
        known = LabelledSignals.of(student.scores, student.temperature, probe.scores, sources.labels)
        calibration = calibrate(sources, CLASSES, sources.domain)
        answers = student(new.features)
        signals = Signals.of(answers, student.temperature, probe(new.frozen))
        share = calibration.share(known.estimates(signals)[calibration.estimator], 200, 1.0)
        actual = float((answers.argmax(axis=1) == new.labels).mean())
        covered.append(share.low <= actual <= share.high)
        errors.append(abs(share.value - actual))
    assert np.mean(covered) >= 0.8
    assert np.mean(errors) < 0.12


def test_estimates_are_the_known_accuracy_if_no_signal_changes() -> None:
    known = LabelledSignals(Signals(1.0, 2.0), LOGIT)
    for value in known.estimates(Signals(1.0, 2.0)).values():
        assert inverse_logit(value) == pytest.approx(0.8)
    lower = known.estimates(Signals(0.5, 1.0))
    assert lower[AGREEMENT] < lower[BOTH] < lower[CONFIDENCE] < LOGIT


def test_the_estimator_with_the_smallest_error_is_used() -> None:
    errors = {CONFIDENCE: {0: [-0.2, -0.4], 1: [-0.6]}, AGREEMENT: {0: [1.0, -1.0], 1: [1.0]}}
    calibration = Calibration.of(errors)
    assert (calibration.estimator, calibration.sites, calibration.groups) == (CONFIDENCE, 3, 2)
    assert calibration.shift == pytest.approx(-0.45)
    assert calibration.between == pytest.approx(0.045)
    assert calibration.within == pytest.approx(0.02)


def test_an_interval_narrows_with_images_and_with_nearness() -> None:
    calibration = Calibration(CONFIDENCE, -0.5, 0.1, 0.02, 30, 3)
    few, many = (calibration.share(LOGIT, images, 1.0) for images in (20, 1000))
    near = calibration.share(LOGIT, 1000, 0.0)
    assert few.high - few.low > many.high - many.low > near.high - near.low > 0
    assert near.value == pytest.approx(0.8)
    assert many.value < 0.75
    assert calibration.share(LOGIT, 1000, 5.0) == many


def test_distance_is_0_inside_about_1_for_another_domain_and_more_beyond() -> None:
    generator = np.random.default_rng(1)
    sources = joined([domain(generator, 120, number) for number in range(3)])
    distances = Distances.of(sources, sources.domain)
    again = sources.of(np.arange(360) % 2 == 0)
    near, beyond = distances.relative(again.frozen)
    assert (near < 0.15, beyond) == (True, False)
    assert 0.4 < distances.relative(domain(generator, 120, 3).frozen)[0] < 2
    elsewhere = generator.normal(size=(120, SIZE)).astype(np.float32) + 4
    assert distances.relative(elsewhere)[1]


def test_a_few_images_are_not_far_by_chance() -> None:
    generator = np.random.default_rng(2)
    sources = joined([domain(generator, 200, number) for number in range(3)])
    distances = Distances.of(sources, sources.domain)
    small = [distances.relative(sources.frozen[generator.permutation(600)[:8]])[0] for _ in range(60)]
    assert np.median(small) < 0.5


@pytest.mark.parametrize("view", range(1, len(VIEWS) + 1), ids=[change.name for change in VIEWS])
def test_each_augmentation_is_repeatable_and_changes_images(view: int) -> None:
    pixels = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    first, second = (apply_change(pixels, view, np.random.default_rng(0)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == pixels.shape
    assert first.dtype == torch.uint8
    assert not torch.equal(first, pixels)
