"""Class-balanced sampling: shares of classes, batches as a pure function of the step, the choice of the exponent."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vl2v.config import RunConfig
from vl2v.data.batches import Streams, class_shares, expected_draws, shuffled_pass
from vl2v.errors import ConfigError
from vl2v.training.align_options import row_weights
from vl2v.training.balance import macro_accuracy
from vl2v.training.data import TrainingData
from vl2v.validation import parse

RARE = np.array([0] * 90 + [1] * 10, np.int64)


def config_of(balance: Any, method: str = "erm") -> RunConfig:
    values = {"data": {"root": "x", "balance": balance}, "teacher": {"spec": "offline:"}}
    return parse(RunConfig, values | {"student": {"spec": "offline:"}, "method": method}, "test")


def passes(balance: float, number: int, labels: NDArray[np.int64] = RARE) -> NDArray[np.int64]:
    """Return how often each image is drawn in a number of passes."""
    streams = Streams((np.arange(len(labels)),), (len(labels),), 5, labels, balance)
    return np.bincount(np.concatenate([streams.draw(step).rows for step in range(number)]), minlength=len(labels))


def test_the_probability_of_a_class_is_a_power_of_its_count() -> None:
    counts = np.array([90, 10])
    assert class_shares(counts, 0).tolist() == [0.9, 0.1]
    assert class_shares(counts, 0.5).tolist() == pytest.approx([0.75, 0.25])
    assert class_shares(counts, 1).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("balance", "rare"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_classes_are_drawn_in_proportion_to_their_probability(balance: float, rare: float) -> None:
    drawn = passes(balance, 40)
    assert drawn[90:].sum() / drawn.sum() == pytest.approx(rare, abs=0.001)
    assert drawn / 40 == pytest.approx(expected_draws(RARE, balance), abs=0.35)
    assert drawn[90:].max() - drawn[90:].min() <= 40  # by at most one in each pass


def test_without_balance_the_batches_are_those_of_earlier_versions() -> None:
    groups = np.arange(90), np.arange(90, 100)
    rows = Streams(groups, (45, 5), 7, RARE, 0.0).draw(1).rows
    for group, share, part in ((0, 45, rows[:45]), (1, 5, rows[45:])):
        order = np.random.default_rng([7, group, 0]).permutation(len(groups[group]))
        assert np.array_equal(part, groups[group][order[share : 2 * share]])
    assert np.array_equal(rows, Streams(groups, (45, 5), 7).draw(1).rows)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 1), st.integers(0, 40), st.integers(0, 9))
def test_a_batch_depends_on_seed_and_step_alone(labels: list[int], balance: float, step: int, seed: int) -> None:
    known = np.array(labels, np.int64)
    group = np.arange(len(labels))
    walked = Streams((group,), (4,), seed, known, balance)
    for earlier in range(0, step, 7):
        walked.draw(earlier)
    draw = walked.draw(step)
    assert np.array_equal(draw.rows, Streams((group,), (4,), seed, known, balance).draw(step).rows)
    parts = [walked.draw(step, rank, 2).rows for rank in range(2)]
    assert Counter(np.concatenate(parts).tolist()) == Counter(draw.rows.tolist())
    order = shuffled_pass(known, len(known), balance, np.random.default_rng(seed))
    assert len(order) == len(known)
    shares = class_shares(np.unique(known, return_counts=True)[1], balance) * len(known)
    drawn = np.array([(known[order] == k).sum() for k in np.unique(known)])
    assert (np.abs(drawn - shares) <= 1 + 1e-9).all()


def test_images_without_labels_are_not_affected() -> None:
    labels = np.concatenate([RARE, np.full(20, -1)])
    groups = np.arange(100), np.arange(100, 120)
    plain, balanced = Streams(groups, (50, 10), 3, labels), Streams(groups, (50, 10), 3, labels, 1.0)
    assert np.array_equal(plain.draw(4).rows[50:], balanced.draw(4).rows[50:])
    assert not np.array_equal(plain.draw(4).rows[:50], balanced.draw(4).rows[:50])


def data_of(features: NDArray[np.float32], labels: NDArray[np.int64], folder: Path) -> TrainingData:
    count = len(labels)
    return TrainingData(
        pixels=np.zeros((count, 1, 1, 3), np.uint8), slots=np.arange(count), labels=labels, embeddings=None,
        head=torch.eye(2, 4), logit_scale=20.0, groups=(np.arange(count),), shares=(count,),
        validation={"ink": (np.arange(count), labels)}, digest="", cache=folder,
    )  # fmt: skip


def test_the_closed_form_of_align_weights_rows_as_the_batches_do(tmp_path: Path) -> None:
    data = data_of(np.zeros((100, 1), np.float32), RARE, tmp_path)
    assert row_weights(data, 1.0)[0] == pytest.approx(np.where(RARE == 0, 0.5 / 90, 0.5 / 10))
    assert row_weights(data, 0.0)[0].tolist() == [0.01] * 100


@pytest.mark.parametrize("method", ["erm", "vl2v"])
def test_the_probe_prefers_balance_if_a_rare_class_overlaps_with_a_frequent_one(tmp_path: Path, method: str) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(100, 3)).astype(np.float32)
    features[:, 0] += RARE  # one standard deviation apart
    data = data_of(features, RARE, tmp_path)
    config = config_of("auto", method)
    if method == "vl2v":  # by cosine to a teacher whose embeddings carry no information
        data = TrainingData(**vars(data) | {"embeddings": np.eye(2, 4, dtype=np.float32)[RARE]})
    macro = {exponent: macro_accuracy(features, data, config, exponent) for exponent in (0.0, 0.5, 1.0)}
    assert macro[0.0] < 0.6
    assert macro[1.0] > macro[0.0] + 0.05
    assert all(0 <= value <= 1 for value in macro.values())


def test_the_setting_is_a_number_or_auto() -> None:
    assert config_of("auto").data.exponent == 0.0
    assert config_of("0.5").data.balance == 0.5
    for wrong in (-0.1, 1.1, "some"):
        with pytest.raises(ConfigError, match=r"data\.balance"):
            config_of(wrong)
