"""Equal digests among many, without an object for each of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]


def first_rows(digests: Bytes) -> Rows:
    """Return the first row with the same digest as each row, [N] int64.

    Args:
        digests: [N, 32] uint8, SHA-256.
    """
    order, new = _sorted(digests)
    first = np.empty_like(order)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def distinct(digests: Bytes) -> Rows:
    """Return the first row of each distinct digest of [N, 32] uint8, in the order of the digests."""
    order, new = _sorted(digests)
    return order[new]


def among(digests: Bytes, others: Bytes) -> NDArray[np.bool_]:
    """Return [N] bool, whether each of [N, 32] digests is one of `others`."""
    return first_rows(np.concatenate([others, digests]))[len(others) :] < len(others)


def _sorted(digests: Bytes) -> tuple[Rows, NDArray[np.bool_]]:
    """Return the rows in the order of their digests, [N] int64, and whether a digest is the first of its kind there."""
    words = np.ascontiguousarray(digests).view(">u8")  # [N, 4], which compare like the bytes
    heads = words[:, 0].astype(np.uint64)
    order = np.argsort(heads, kind="stable")
    new = np.ones(len(order), np.bool_)
    heads = heads[order]
    new[1:] = heads[1:] != heads[:-1]
    again = np.flatnonzero(~new)
    if (digests[order[again]] != digests[order[again - 1]]).any():  # different digests with the same first eight bytes
        order = np.lexsort(words.T[::-1])
        new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    return order, new
