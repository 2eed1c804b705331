"""A sample of the training images in a student's provenance, to recognise these images in other datasets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vl2v.data.pixels import Digests

LARGEST = 256  # digests in a sample
DIGITS = 16  # hexadecimal digits of a digest, which stand for its first eight bytes


def sample_of(digests: Digests) -> list[str]:
    """Return the smallest SHA-256 digests, at most `LARGEST`, by their first `DIGITS` hexadecimal digits.

    The smallest digests are a random sample of the images that does not depend on their order or their paths.

    Args:
        digests: [N, 32] uint8, the SHA-256 of each image.
    """
    return [f"{head:0{DIGITS}x}" for head in np.unique(_heads(digests))[:LARGEST].tolist()]


def share_among(sample: Sequence[str], digests: Digests) -> float:
    """Return the share, in [0, 1], of a sample that is among images, [N, 32] uint8; 0 for an empty sample."""
    heads = np.array([int(text, 16) for text in sample], np.uint64)
    return float(np.isin(heads, _heads(digests)).mean()) if len(heads) else 0.0


def _heads(digests: Digests) -> NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, : DIGITS // 2]).view(">u8").ravel().astype(np.uint64)
