from __future__ import annotations

import numpy as np

from vl2v.data.digest_sample import DIGITS, LARGEST, sample_of, share_among


def digests(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def test_a_sample_contains_the_smallest_digests_in_any_order() -> None:
    all_ = digests(1000)
    sample = sample_of(all_)
    assert sample == sorted(row.tobytes().hex()[:DIGITS] for row in all_)[:LARGEST]
    assert sample_of(all_[::-1]) == sample


def test_the_share_is_that_of_the_images() -> None:
    trained, others = digests(4000), digests(5000, seed=1)
    sample = sample_of(trained)
    assert share_among(sample, others) == 0
    assert share_among(sample, np.concatenate([others, trained])) == 1
    assert abs(share_among(sample, np.concatenate([others, trained[:1000]])) - 0.25) < 0.1
    assert share_among([], trained) == share_among(sample, trained[:0]) == 0
    assert sample_of(trained[:0]) == []
