"""A random teacher is stopped within a few hundred answers, a weak one is not, and a wrong order is named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vl2v.teacher.purchase.agreement import ORDERS, Agreement, Fault

D = 16


def teach(
    classes: int,
    count: int,
    strength: float,
    seed: int,
    *,
    order: Callable[[int], np.ndarray] | None = None,
    batch: int = 32,
    every: int = 64,
    shares: np.ndarray | None = None,
) -> tuple[Fault | None, int, float]:
    """Answers to images of random classes, as far in their class's direction as `strength`; judged now and then.

    Returns the fault, after how many answers, and how often the right class scored above another one.
    """
    rng = np.random.default_rng(seed)
    head = np.linalg.qr(rng.normal(size=(max(D, classes), max(D, classes))))[0][:classes]
    labels = rng.choice(classes, count, p=shares)
    rows = strength * head[labels] + rng.normal(size=(count, head.shape[1])) / np.sqrt(head.shape[1])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = rows @ head.T
    won = (scores[np.arange(count), labels][:, None] > scores).sum(1).mean() / (classes - 1)
    agreement = Agreement(head)
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        answered = rows[part]
        agreement.add(answered[order(len(answered))] if order else answered, labels[part], True)
        done = min(start + batch, count)
        if (done % every == 0 or done == count) and (fault := agreement.fault()):
            return fault, done, float(won)
    return None, count, float(won)


@pytest.mark.parametrize("classes", [2, 3, 7, 65])
def test_a_random_teacher_is_stopped_within_a_few_hundred_answers(classes: int) -> None:
    outcomes = [teach(classes, 512, 0.0, seed) for seed in range(30)]
    assert sum(fault is not None for fault, _, _ in outcomes) >= 24, "z < 1 is 84% of them"
    assert all(fault.problem.endswith("no better than chance.") for fault, _, _ in outcomes if fault)


@pytest.mark.parametrize("classes", [2, 3, 7, 65])
@pytest.mark.parametrize("count", [60, 512])
def test_a_weak_teacher_above_chance_is_not_stopped(classes: int, count: int) -> None:
    strength = {2: 0.11, 3: 0.12, 7: 0.1, 65: 0.06}[classes]
    outcomes = [teach(classes, count, strength, seed) for seed in range(40)]
    assert np.mean([won for _, _, won in outcomes]) < 0.68, "it is weak"
    assert sum(fault is not None for fault, _, _ in outcomes) <= 1


def test_a_weak_teacher_is_detected_with_one_dominant_class() -> None:
    shares = np.array([0.9, 0.06, 0.04])
    outcomes = [teach(3, 512, 0.5, seed, shares=shares) for seed in range(20)]
    assert not any(fault for fault, _, _ in outcomes)


@pytest.mark.parametrize("name", ORDERS)
def test_a_wrong_order_is_named_even_with_few_images(name: str) -> None:
    fault, _, _ = teach(3, 36, 2.0, 0, order=lambda n: np.argsort(ORDERS[name](n)), batch=14)
    assert fault is not None
    assert fault.problem == "returns embeddings in the wrong order."
    assert name in fault.found


@pytest.mark.parametrize("batch", [4, 8, 32])
@pytest.mark.parametrize("classes", [3, 7])
def test_shuffled_answers_are_distinguished_from_weak_ones(batch: int, classes: int) -> None:
    """Shuffled in small requests, answers of a good teacher agree with the labels as often as those of a weak one."""
    rng = np.random.default_rng(0)
    outcomes = [teach(classes, 512, 2.0, seed, order=rng.permutation, batch=batch) for seed in range(10)]
    assert sum(fault is not None for fault, _, _ in outcomes) >= 8
    assert any(fault is not None and "in another order" in fault.found for fault, _, _ in outcomes)
    weak = [teach(classes, 512, 0.3, seed, batch=batch) for seed in range(30)]
    assert not any(fault for fault, _, _ in weak)


@pytest.mark.parametrize("count", [1, 2, 15, 24, 47])
def test_few_images_do_not_stop_a_purchase(count: int) -> None:
    assert all(teach(3, count, 0.0, seed)[0] is None for seed in range(20))
