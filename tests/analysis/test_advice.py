from __future__ import annotations

import numpy as np
import pytest

from vl2v.analysis.advice import DISTIL, LABELS_ALONE, OTHER_TEACHER, UNDECIDED, Advice, advise
from vl2v.analysis.intervals import difference, share_of
from vl2v.analysis.probe import cross_validated, domain_folds, probabilities, stratified_folds
from vl2v.analysis.teacher_value import CLASSES, SAMPLE, sample_of


def right(share: float, count: int) -> np.ndarray:
    return np.arange(count) < round(share * count)


def blobs(classes: int, each: int, domains: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features of separable classes that shift between domains, labels and domains."""
    generator = np.random.default_rng(0)
    labels, domain = np.repeat(np.arange(classes), each), np.tile(np.arange(domains), classes * each // domains)
    centres, moves = generator.normal(size=(classes, 48)), generator.normal(size=(domains, 48))
    return centres[labels] + moves[domain] + noise * generator.normal(size=(len(labels), 48)), labels, domain


def advice_for(teacher: float, probe: float, answers: int = 100, images: int = 400) -> Advice:
    advice = advise(right(teacher, answers), right(probe, images), True, 4, 4)
    assert advice is not None
    return advice


def test_a_teacher_right_on_half_the_images_against_separable_features() -> None:
    features, labels, domain = blobs(4, 99, 3)
    scores = cross_validated(features, labels, domain_folds(domain), 4)
    advice = advise(right(0.5, 100), scores.argmax(axis=1) == labels, True, 4, 4)
    assert advice is not None
    assert advice.action == LABELS_ALONE
    assert "train on the labels alone (vl2v distill --method erm)" in advice.line
    assert "\n" not in advice.line
    assert "each source domain left out in turn" in advice.line


def test_the_advice_depends_on_both_accuracies() -> None:
    assert advice_for(0.95, 0.6).action == DISTIL
    assert advice_for(0.3, 0.6).action == OTHER_TEACHER
    assert advice_for(0.8, 0.8).action == UNDECIDED
    assert advice_for(0.5, 0.95).action == LABELS_ALONE


def test_too_few_images_or_answers_give_no_advice() -> None:
    assert advise(right(0.5, 19), right(1.0, 400), True, 4, 4) is None
    assert advise(right(0.5, 100), right(1.0, 99), True, 4, 4) is None
    assert advise(right(0.5, 100), right(1.0, 120), True, 30, 30) is None  # 4 images per class


def test_one_domain_and_missing_classes_are_reported() -> None:
    advice = advise(right(0.9, 100), right(0.5, 400), False, 50, 345)
    assert advice is not None
    assert "5 random folds of the one source domain" in advice.line
    assert "50 of 345 classes" in advice.line
    assert advice.to_dict()["teacher"]["low"] < 0.9 < advice.to_dict()["teacher"]["high"]


def test_the_interval_of_a_difference_is_that_of_newcombe() -> None:
    low, high = difference(share_of(56 / 70, 70), share_of(48 / 80, 80))  # example (a) of the paper, method 10
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


def test_no_image_is_predicted_by_a_probe_that_was_fitted_on_it() -> None:
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(200, 300)), generator.integers(2, size=200)  # nothing to learn
    scores = cross_validated(features, labels, stratified_folds(labels), 2)
    assert 0.3 < (scores.argmax(axis=1) == labels).mean() < 0.7


@pytest.mark.parametrize("width", [8, 400])
def test_both_ways_to_solve_learn_separable_classes(width: int) -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    features = 4 * generator.normal(size=(3, width))[labels] + 0.3 * generator.normal(size=(120, width))
    scores = cross_validated(features, labels, stratified_folds(labels), 3)
    assert (scores.argmax(axis=1) == labels).all()
    assert np.allclose(probabilities(scores, labels).sum(axis=1), 1)


def test_a_class_of_one_domain_alone_is_never_predicted_there() -> None:
    features, labels, domain = blobs(3, 30, 3)
    chosen = (labels != 2) | (domain == 1)
    scores = cross_validated(features[chosen], labels[chosen], domain_folds(domain[chosen]), 3)
    assert np.isneginf(scores[domain[chosen] == 1, 2]).all()
    assert np.isfinite(probabilities(scores, labels[chosen])).all()


def test_copies_of_a_file_are_in_one_fold_and_classes_are_shared_evenly() -> None:
    labels = np.repeat(np.arange(4), 25)
    folds = stratified_folds(labels, units=np.arange(100) // 2)
    assert (folds[::2] == folds[1::2]).sum() == 50
    counts = np.array([np.bincount(stratified_folds(labels)[labels == k], minlength=5) for k in range(4)])
    assert (counts == 5).all()


def test_a_sample_is_shared_evenly_by_domain_and_class_and_takes_answered_images_first() -> None:
    generator = np.random.default_rng(1)
    labels, domains = generator.integers(5, size=4000), generator.integers(3, size=4000)
    candidates, known = np.arange(1000, 4000), np.zeros(3000, bool)
    known[:30] = True
    rows, classes = sample_of(labels, domains, candidates, known)
    assert len(set(rows)) == SAMPLE
    assert rows.min() >= 1000
    assert classes.tolist() == [0, 1, 2, 3, 4]
    assert set(range(1000, 1030)) <= set(rows)
    for part in (rows, rows[:100]):
        counts = np.bincount(5 * domains[part] + labels[part])
        assert counts.max() - counts.min() <= 1
    many = np.arange(4000) % 400
    rows, classes = sample_of(many, domains, np.arange(4000))
    assert len(classes) == CLASSES
    assert set(many[rows]) == set(classes)
