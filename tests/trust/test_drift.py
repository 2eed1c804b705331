from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vl2v.trust.drift import LEVEL, fit_reference, share_unusual

CLASSES, DIMENSION = 4, 24


def images(
    seed: int, count: int, domain: np.ndarray, classes: range = range(CLASSES), spread: float = 0.08
) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings around their class, shifted by their domain, and their classes."""
    rng = np.random.default_rng(seed)
    answers = rng.choice(list(classes), count)
    rows = np.eye(DIMENSION)[answers] + domain + rng.normal(scale=spread, size=(count, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), answers


INK, NEON, NEW = (0.3 * np.eye(DIMENSION)[-k] for k in (1, 2, 3))


def reference_of(count: int = 300) -> Any:
    parts = [images(1, count, INK), images(2, count, NEON)]
    rows, answers = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return fit_reference(rows, np.repeat(["ink", "neon"], count), answers)


def test_false_alarms_on_new_images_are_near_the_level() -> None:
    reference = reference_of()
    for seed, domain in ((3, INK), (4, NEON)):
        rows, _ = images(seed, 1000, domain)
        for size in (1, 8, 32):
            share = share_unusual(reference, rows, size, 300)
            assert share is not None
            assert share <= 4 * LEVEL


def test_an_unseen_domain_is_noticed_the_sooner_the_larger_the_batch() -> None:
    reference = reference_of()
    rows, _ = images(5, 600, NEW)
    shares = [share_unusual(reference, rows, size) for size in (1, 8, 32)]
    assert shares[0] is not None
    assert shares[0] < 1
    assert shares[2] == 1


def test_mixtures_and_single_classes_raise_few_alarms() -> None:
    reference = reference_of()
    mixed = np.concatenate([images(6, 300, INK)[0], images(7, 300, NEON)[0]])
    assert (share_unusual(reference, mixed, 32) or 0) <= 4 * LEVEL
    alone, _ = images(8, 300, INK, range(1))
    assert (share_unusual(reference, alone, 32) or 0) <= 0.1
    assert reference.of(alone).nearest == "ink"


def test_the_reference_is_a_function_of_its_arguments() -> None:
    assert reference_of(60).to_dict() == reference_of(60).to_dict()


def test_few_images_give_no_drift_reference() -> None:
    rows, answers = images(1, 5, INK)
    assert fit_reference(rows, np.repeat(["ink"], 5), answers) is None
    rows, answers = images(1, 12, INK)
    small = fit_reference(rows, np.repeat(["ink"], 12), answers)
    assert small is not None
    assert small.sizes == (1, 2, 4)
    assert share_unusual(small, rows, 32) is None


def test_equal_embeddings_do_not_divide_by_zero() -> None:
    rows = np.tile(np.eye(3, dtype=np.float32)[0], (30, 1))
    reference = fit_reference(rows, np.repeat(["ink"], 30), np.zeros(30, np.int64))
    assert reference is not None
    assert not reference.of(rows).unusual
    assert reference.of(np.eye(3)[1:]).unusual


@pytest.mark.parametrize("classes", [100])
def test_many_classes_keep_the_file_small(classes: int) -> None:
    rng = np.random.default_rng(0)
    answers = np.repeat(np.arange(classes), 5)
    rows = rng.normal(size=(len(answers), 8)).astype(np.float32)
    reference = fit_reference(rows, np.repeat(["ink"], len(rows)), answers)
    assert reference is not None
    assert reference.centres.shape == (64, 8)
