"""Diverse images: shared evenly by groups, one per cluster, distant from images that are already selected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vl2v.analysis.selection import diverse, k_centre, shares_of


def clustered(clusters: int = 6, each: int = 20) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return features around well separated centres, and the index of the centre of each."""
    generator = np.random.default_rng(0)
    centres = np.linalg.qr(generator.normal(size=(300, clusters)))[0].T * 10
    where = np.repeat(np.arange(clusters), each)
    return centres[where] + generator.normal(scale=0.02, size=(len(where), 300)), where


def test_every_cluster_is_represented_once() -> None:
    features, where = clustered()
    for seed in range(5):
        chosen = diverse(features, np.zeros(len(where), np.int64), 6, seed=seed)
        assert sorted(where[chosen]) == list(range(6))


def test_k_centre_selects_one_row_of_every_cluster_before_a_second() -> None:
    features, where = clustered()
    for seed in range(5):
        assert sorted(where[k_centre(features, 6, seed=seed)]) == list(range(6))
        assert len(set(k_centre(features, len(where), seed=seed).tolist())) == len(where)


def test_clusters_with_a_selected_image_are_already_represented() -> None:
    features, where = clustered()
    selected = (where < 4) & (np.arange(len(where)) % 20 == 0)
    chosen = diverse(features, np.zeros(len(where), np.int64), 2, selected=selected)
    assert sorted(where[chosen]) == [4, 5]


def test_groups_share_evenly_in_every_first_part_as_far_as_their_sizes_permit() -> None:
    groups = np.array([0] * 50 + [1] * 50 + [2] * 3)
    features = np.random.default_rng(0).normal(size=(len(groups), 8))
    chosen = diverse(features, groups, 43)
    assert np.bincount(groups[chosen]).tolist() == [20, 20, 3]
    assert np.bincount(groups[chosen[:9]]).tolist() == [3, 3, 3]
    assert shares_of(groups, 4, selected=np.arange(len(groups)) < 10) == {0: 0, 1: 2, 2: 2}


def test_the_choice_is_the_same_every_time_and_depends_on_the_seed() -> None:
    features = np.random.default_rng(0).normal(size=(90, 8))
    groups = np.arange(90) % 2
    first, again, other = (diverse(features, groups, 10, seed=seed).tolist() for seed in (0, 0, 1))
    assert first == again != other


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(0, 30),
    selected=st.lists(st.booleans(), min_size=30, max_size=30),
    copies=st.integers(1, 30),
    groups=st.integers(1, 4),
)
def test_the_images_are_distinct_and_new_for_any_features(
    count: int, selected: list[bool], copies: int, groups: int
) -> None:
    """With copies, there are fewer clusters than images to choose."""
    features = np.repeat(np.random.default_rng(0).normal(size=(30, 5)), copies, axis=0)[:30]
    out = np.array(selected)
    count = min(count, int((~out).sum()))
    chosen = diverse(features, np.arange(30) % groups, count, selected=out)
    assert len(set(chosen.tolist())) == count == len(chosen)
    assert not out[chosen].any()


@pytest.mark.parametrize("features", [np.zeros((10, 3)), np.ones((10, 200))])
def test_equal_features_are_accepted(features: NDArray[np.float64]) -> None:
    assert len(set(diverse(features, np.zeros(10, np.int64), 7).tolist())) == 7
