"""Seeded splits: DomainBed's 80/20 holdout, and a few labels per class.

Keep two ideas apart: a domain left out *to test* (the held-out domain) and the part of each source domain held out
*to select* (the validation split). This module draws the second; the user names the first.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def seed_hash(*parts: object) -> int:
    """Hash values to a seed in [0, 2**31): MD5 of their tuple's text, as DomainBed does."""
    return int(hashlib.md5(str(parts).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def domainbed_holdout(
    length: int, trial_seed: int, domain_index: int, fraction: float = 0.2
) -> tuple[Indices, Indices]:
    """Split the images of one domain as DomainBed does (Gulrajani and Lopez-Paz, ICLR 2021).

    Args:
        length: how many images the domain has, in the order of sorted classes, then sorted files.
        trial_seed: the seed of the trial.
        domain_index: the domain's position among all domains in alphabetical order, the held-out one included.
        fraction: the part held out for validation, in [0, 1); the count is rounded down.

    Returns:
        (kept, held-out), int64 indices in the order of the shuffle, together a permutation of 0..length-1.

    Raises:
        ValueError: if `length` is negative or `fraction` lies outside [0, 1).
    """
    if length < 0 or not 0 <= fraction < 1:
        raise ValueError(f"expected length >= 0 and 0 <= fraction < 1, found {length} and {fraction}")
    order = np.arange(length, dtype=np.int64)
    np.random.RandomState(seed_hash(trial_seed, domain_index)).shuffle(order)
    count = int(length * fraction)
    return order[count:], order[:count]


def labels_per_class(indices: Indices, labels: NDArray[np.int64], count: int, seed: int, domain_index: int) -> Indices:
    """Keep at most `count` of `indices` for every class, drawn with a seed of its own.

    Args:
        indices: candidate positions in `labels`.
        labels: [N] class of every image of the domain.
        count: labels kept per class, at least 1; a class with fewer keeps all it has.
        seed: the run's seed.
        domain_index: the domain's position, so that domains draw apart.

    Returns:
        The kept indices in ascending order.
    """
    generator = np.random.default_rng([seed, domain_index, 0x1ABE1])
    shuffled = indices[generator.permutation(len(indices))]
    kept = [shuffled[labels[shuffled] == k][:count] for k in np.unique(labels[shuffled])]
    return np.sort(np.concatenate(kept)) if kept else indices[:0]
