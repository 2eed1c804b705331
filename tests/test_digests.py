"""Equal digests are found as a dictionary finds them."""

from __future__ import annotations

import numpy as np
import pytest

from vl2v.digests import among, distinct, first_rows

RNG = np.random.default_rng(0)
SOME = RNG.integers(0, 256, (40, 32), dtype=np.uint8)
ALIKE = SOME.copy()
ALIKE[:, :8] = SOME[0, :8]
CASES = {
    "none": SOME[:0],
    "one": SOME[:1],
    "all different": SOME,
    "repeated": SOME[RNG.integers(0, 20, 100)],
    "the same first bytes": ALIKE,
    "repeated, the same first bytes": ALIKE[RNG.integers(0, 20, 100)],
    "a part of each row": np.repeat(SOME, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("digests", CASES.values(), ids=CASES)
def test_first_rows_and_distinct_digests(digests: np.ndarray) -> None:
    first: dict[bytes, int] = {}
    expected = [first.setdefault(digest.tobytes(), row) for row, digest in enumerate(digests)]
    assert first_rows(digests).tolist() == expected
    assert distinct(digests).tolist() == [first[digest] for digest in sorted(first)]


@pytest.mark.parametrize("digests", CASES.values(), ids=CASES)
def test_digests_among_others(digests: np.ndarray) -> None:
    for others in (SOME[:10], ALIKE[5:15], SOME[:0]):
        known = {other.tobytes() for other in others}
        assert among(digests, others).tolist() == [digest.tobytes() in known for digest in digests]
