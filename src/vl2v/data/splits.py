"""Seeded splits: DomainBed's 80/20 holdout, and a few labels per class.

Two things are held out: a whole domain for *testing* (the held-out domain, named by the user), and a part of each
source domain for *selection* (the validation split, drawn by this module).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
DatasetRows = Indices
"""Indices in a `vl2v.data.images.ImageDataset`."""
ExampleRows = Indices
"""Indices of training examples, one for every training image and view."""
SplitPositions = Indices
"""Indices of the validation and test images of a run, in the order of `Split.evaluation_rows`."""
Slots = Indices
"""Indices in the pixel cache."""
TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = ("train", "validation", "test")
_NAMES = {
    **dict.fromkeys(("train", "training", "trainset"), TRAIN),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "testset", "eval", "evaluation", "holdout"), TEST),
}


def part_of(name: str) -> int | None:
    """Return the part of a split with a name, in any case: train, validation or test; None for other names."""
    return _NAMES.get(name.strip().casefold())


def seed_hash(*parts: object) -> int:
    """Hash values to a seed in [0, 2**31): MD5 of their tuple's text, as DomainBed does."""
    return int(hashlib.md5(str(parts).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def domainbed_holdout(
    length: int, trial_seed: int, domain_index: int, fraction: float = 0.2
) -> tuple[Indices, Indices]:
    """Split the images of one domain as DomainBed does (Gulrajani and Lopez-Paz, ICLR 2021).

    Args:
        length: number of images of the domain, sorted by class and file.
        domain_index: index of the domain in alphabetical order, including held-out domains.
        fraction: share of validation images in [0, 1); their number is rounded down.

    Returns:
        (training, validation), int64 indices in the order of the shuffle, together a permutation of 0..length-1.

    Raises:
        ValueError: if `length` is negative, or `fraction` is out of range.
    """
    if length < 0 or not 0 <= fraction < 1:
        raise ValueError(f"expected length >= 0 and 0 <= fraction < 1, found {length} and {fraction}")
    order = np.arange(length, dtype=np.int64)
    np.random.RandomState(seed_hash(trial_seed, domain_index)).shuffle(order)
    count = int(length * fraction)
    return order[count:], order[:count]


def grouped_holdout(
    groups: NDArray[np.int64],
    labels: NDArray[np.int64],
    held: dict[int, bool],
    seed: int,
    domain_index: int,
    fraction: float,
) -> tuple[Indices, Indices]:
    """Split the images of one domain by whole groups, such as the frames of a clip or the visits of a patient.

    Groups are held out in a seeded order as long as their images fit into the fraction; at least one is. A group with
    the last images of a class is not held out.

    Args:
        groups: [N] group of each image.
        labels: [N] class of each image; -1 for an image without a label.
        held: whether a group is held out, for groups that occur in earlier domains. Those of this domain are added.
        fraction: share of validation images in [0, 1). The result may be smaller, or larger if the groups are large.

    Returns:
        (training, validation), int64 indices in `groups`, ascending; one of them is empty if there are too few groups.
    """
    names, where, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(where, kind="stable"), np.cumsum(sizes)[:-1])
    remaining = np.bincount(labels[labels >= 0], minlength=1)  # number of training images of each class

    def class_counts(i: int) -> Indices:
        """Number of images of each class in a group."""
        group_labels = labels[members[i]]
        return np.bincount(group_labels[group_labels >= 0], minlength=len(remaining))

    def spares(i: int) -> bool:
        """Whether every class has images in other groups."""
        return not ((class_counts(i) > 0) & (remaining <= class_counts(i))).any()

    order = np.arange(len(names), dtype=np.int64)
    np.random.RandomState(seed_hash(seed, domain_index)).shuffle(order)
    out = [i for i, name in enumerate(names.tolist()) if held.get(name)]
    free = [int(i) for i in order if int(names[i]) not in held]
    for i in out:
        remaining = remaining - class_counts(i)
    for i in free:
        if sizes[[*out, i]].sum() <= int(len(groups) * fraction) and spares(i):
            out.append(i)
            remaining = remaining - class_counts(i)
    if not out:  # every group is larger than the fraction
        out += [i for i in sorted(free, key=lambda i: int(sizes[i])) if spares(i)][:1]
    held.update({int(names[i]): i in out for i in free})
    mask = np.isin(where, out)
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def labels_per_class(indices: Indices, labels: NDArray[np.int64], count: int, seed: int, domain_index: int) -> Indices:
    """Sample at most `count` images of every class; return their indices in ascending order.

    Args:
        indices: candidates, as indices in `labels`.
        labels: [N] class of every image of the domain.
        count: maximum number of images per class, at least 1.
        domain_index: index of the domain, so that domains have different samples.
    """
    generator = np.random.default_rng([seed, domain_index, 0x1ABE1])
    shuffled = indices[generator.permutation(len(indices))]
    samples = [shuffled[labels[shuffled] == k][:count] for k in np.unique(labels[shuffled])]
    return np.sort(np.concatenate(samples)) if samples else indices[:0]
