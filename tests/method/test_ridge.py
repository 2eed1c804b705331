from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from vl2v.data.batches import Streams
from vl2v.method.align import align
from vl2v.method.loop import Batch
from vl2v.method.loss import dual_loss
from vl2v.method.ridge import Block, dual_targets, ridge, term_weights

GROUPS = (np.arange(0, 12), np.arange(12, 18), np.arange(18, 42))  # the last one has no labels
SHARES = (4, 2, 8)
LABELLED = np.arange(42) < 18


def dataset(seed: int = 0, features: int = 7, dimension: int = 5) -> tuple[NDArray[np.float64], ...]:
    """Return features that correlate with the teacher's embeddings, and text embeddings of three classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, rng.uniform(0.2, 2, features), (42, features))
    image = (x - 3) @ rng.normal(size=(features, dimension)) + rng.normal(1, 0.5, (42, dimension))
    text = rng.normal(size=(3, dimension))[rng.integers(3, size=42)] * 4
    return x, image, text


def blocks(size: int, image_weight: float = 0.4) -> list[Block]:
    x, image, text = dataset()
    directions, pulls = dual_targets(image, text, *term_weights(GROUPS, SHARES, LABELLED), image_weight)
    return [(x[i : i + size], directions[i : i + size], pulls[i : i + size]) for i in range(0, 42, size)]


@pytest.mark.parametrize("strength", [1e-6, 0.01, 3.0])
@pytest.mark.parametrize("size", [5, 42])
def test_solve_is_least_squares_on_the_augmented_system(strength: float, size: int) -> None:
    x, directions, pulls = blocks(42)[0]
    m = pulls / pulls.sum()
    variance = (m[:, None] * (x - m @ x) ** 2).sum() / 7
    rows = np.sqrt(m)[:, None] * np.hstack([x, np.ones((42, 1))])
    penalty = np.sqrt(strength * variance) * np.eye(7, 8)  # none on the bias
    target = np.vstack([np.sqrt(m)[:, None] * directions, np.zeros((7, 5))])
    expected = np.linalg.lstsq(np.vstack([rows, penalty]), target, rcond=None)[0]
    weight, bias = ridge(blocks(size), strength)
    np.testing.assert_allclose(np.column_stack([weight, bias]), expected.T, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("image_weight", [0.0, 0.3, 1.0])
def test_targets_and_pulls_are_the_dual_loss_over_the_batches(image_weight: float) -> None:
    x, image, text = dataset()
    projected = x @ np.random.default_rng(1).normal(size=(7, 5)) - 2
    streams = Streams(GROUPS, SHARES, seed=3)
    losses = []
    for step in range(3):  # every group is used once
        rows = streams.draw(step).rows
        p, i, t, labelled = (torch.from_numpy(a[rows]) for a in (projected, image, text, LABELLED))
        losses.append(float(dual_loss(p, i, t, image_weight, labelled)))
    directions, pulls = dual_targets(image, text, *term_weights(GROUPS, SHARES, LABELLED), image_weight)
    cosines = (projected * directions).sum(1) / np.linalg.norm(projected, axis=1)
    assert -pulls @ cosines == pytest.approx(np.mean(losses), abs=1e-12)


def test_term_weights_agree_with_a_computation_by_hand() -> None:
    groups = (np.array([0, 1]), np.array([2]), np.array([3, 4, 5, 6]))
    image, text = term_weights(groups, (1, 1, 2), np.array([True, True, True, False, False, False, False]))
    np.testing.assert_allclose(image, [1 / 8, 1 / 8, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8])
    np.testing.assert_allclose(text, [1 / 4, 1 / 4, 1 / 2, 0, 0, 0, 0])
    _, text = term_weights(groups, (1, 1, 2), np.zeros(7, dtype=bool))
    assert not text.any()


@pytest.mark.slow
def test_solve_reaches_nearly_the_dual_loss_of_adam() -> None:
    x, image, text = (torch.from_numpy(a[:18]).float() for a in dataset())
    batch = Batch(x, image, text)
    torch.manual_seed(0)
    start, adam = nn.Linear(7, 5), nn.Linear(7, 5)
    adam.load_state_dict(start.state_dict())
    align(adam, [batch] * 3000, learning_rate=3e-3)
    one, every = (np.arange(18),), np.ones(18, dtype=bool)
    directions, pulls = dual_targets(image.numpy(), text.numpy(), *term_weights(one, (18,), every), 0.5)
    solved = nn.Linear(7, 5)
    weight, bias = ridge([(x.numpy(), directions, pulls)], 1e-3)
    with torch.no_grad():
        solved.weight.copy_(torch.from_numpy(weight))
        solved.bias.copy_(torch.from_numpy(bias))
        losses = [float(dual_loss(p(x), image, text)) for p in (start, solved, adam)]
    assert losses[1] < losses[0] - 0.3
    assert losses[2] - 1e-6 < losses[1] < losses[2] + 0.05, losses


def test_rows_without_targets_have_no_effect() -> None:
    x, image, text = dataset()
    directions, pulls = dual_targets(image, text, *term_weights(GROUPS, SHARES, LABELLED), image_weight=0)
    assert not pulls[18:].any()
    assert not directions[18:].any()
    all_rows, labelled = ridge([(x, directions, pulls)], 0.1), ridge([(x[:18], directions[:18], pulls[:18])], 0.1)
    np.testing.assert_allclose(all_rows[0], labelled[0], atol=1e-12)


def test_misuse_is_refused() -> None:
    x, directions, pulls = blocks(42)[0]
    with pytest.raises(ValueError, match="strength"):
        ridge([(x, directions, pulls)], 0.0)
    with pytest.raises(ValueError, match="weight above 0"):
        ridge([(x, directions, pulls * 0)], 0.1)
    with pytest.raises(ValueError, match="vary"):
        ridge([(np.ones_like(x), directions, pulls)], 0.1)
