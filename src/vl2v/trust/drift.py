"""Fit the reference for drift detection on validation images of the source domains.

The rate of false alarms is therefore set without any other domain. Detection of batches of an unseen domain is not
guaranteed; docs/results/trust.md states how often they were detected.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vl2v_runtime.drift import Floats, Reference, residuals

LEVEL = 0.01  # false alarms per batch
ROUNDS, DRAWS = 10, 200  # 2,000 batches per domain and size, of which 20 exceed the limit of the domain
LARGEST = 256
MIN_IMAGES = 12  # per domain: the spread of fewer images cannot be estimated
MAX_IMAGES = 1000  # per domain: more take time and change little
MIN_CENTRE_IMAGES = 3
MAX_CENTRES = 64  # per domain, of its most frequent classes; limits the size of the file with hundreds of classes
DIGITS = 5

Parts = dict[str, NDArray[np.int64]]  # row indices by domain


def fit_reference(
    embeddings: NDArray[np.float32], domains: NDArray[np.str_], answers: NDArray[np.int64]
) -> Reference | None:
    """Fit centres, spreads, and the lengths of the mean residuals of batches of the source domains.

    The lengths are measured on splits: two thirds of every domain form a reference, and batches are drawn from the
    other third. The limit of a batch size is the maximum over the domains, so no domain has more false alarms than
    `LEVEL`.

    Args:
        embeddings: [N, D], with rows of length one, of validation images of the source domains.
        answers: [N] predictions of the student. Labels are not needed.

    Returns:
        The reference, a deterministic function of the arguments. None if no domain has `MIN_IMAGES`.
    """
    rng = np.random.default_rng(0)
    parts: Parts = {}
    for name in dict.fromkeys(domains.tolist()):
        indices = np.flatnonzero(domains == name)
        if len(indices) >= MIN_IMAGES:
            parts[name] = np.sort(rng.permutation(indices)[:MAX_IMAGES])
    if not parts:
        return None
    rows = embeddings.astype(np.float64)
    sizes = _sizes(min(len(part) // 3 for part in parts.values()))
    lengths: dict[int, list[Floats]] = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        mixed = {name: rng.permutation(part) for name, part in parts.items()}
        reference = _reference(rows, {name: part[len(part) // 3 :] for name, part in mixed.items()}, answers)
        part_lengths = _lengths(rows, [p[: len(p) // 3] for p in mixed.values()], reference, sizes, rng)
        for size in sizes:
            lengths[size].append(part_lengths[size])
    joined = [np.concatenate(lengths[size], axis=1) for size in sizes]
    limits = (float(np.quantile(length, 1 - LEVEL, axis=1).max()) for length in joined)
    reference = _reference(rows, parts, answers)
    return replace(
        reference,
        centres=reference.centres.round(DIGITS),
        spreads=reference.spreads.round(DIGITS),
        sizes=sizes,
        expected=tuple(round(float(np.median(length)), DIGITS) for length in joined),
        limit=tuple(round(limit, DIGITS) for limit in limits),
    )


def _sizes(greatest: int) -> tuple[int, ...]:
    return tuple(2**power for power in range(LARGEST.bit_length()) if 2**power <= greatest)


def _reference(rows: Floats, parts: Parts, answers: NDArray[np.int64]) -> Reference:
    """Return a reference with centres and spreads, but without measured lengths."""
    centres = [_centres(rows[part], answers[part]) for part in parts.values()]
    domain = np.repeat(np.arange(len(parts)), [len(part) for part in centres])
    joined = np.concatenate(centres)
    moved = [residuals(rows[part], joined)[1] for part in parts.values()]
    spreads = np.array([max(np.sqrt((part**2).sum(axis=1).mean()), 10.0**-DIGITS) for part in moved])
    images = tuple(len(part) for part in parts.values())
    return Reference(tuple(parts), images, spreads, joined, domain, LEVEL, (1,), (1.0,), (1.0,))


def _centres(rows: Floats, answers: NDArray[np.int64]) -> Floats:
    """Return the mean embedding of each frequent prediction, [C, D], most frequent first; else that of all images."""
    classes, counts = np.unique(answers, return_counts=True)
    frequent = [k for k in np.argsort(-counts, kind="stable")[:MAX_CENTRES] if counts[k] >= MIN_CENTRE_IMAGES]
    return np.stack([rows[answers == classes[k]].mean(axis=0) for k in frequent] or [rows.mean(axis=0)])


def _lengths(
    rows: Floats,
    parts: list[NDArray[np.int64]],
    reference: Reference,
    sizes: tuple[int, ...],
    rng: np.random.Generator,
) -> dict[int, Floats]:
    """Return lengths of the mean residuals of batches in units of spread / sqrt(size): [M, DRAWS] for each size."""
    lengths: dict[int, Floats] = {size: np.empty((len(parts), DRAWS)) for size in sizes}
    for i, part in enumerate(parts):
        centre, residual = residuals(rows[part], reference.centres)
        squares = reference.spreads[reference.domain[centre]] ** 2
        order = rng.permuted(np.tile(np.arange(len(part)), (DRAWS, 1)), axis=1)
        for size in sizes:
            share = np.zeros((DRAWS, len(part)))
            np.put_along_axis(share, order[:, :size], 1 / size, axis=1)
            lengths[size][i] = np.linalg.norm(share @ residual, axis=1) / np.sqrt(share @ squares / size)
    return lengths


def share_unusual(
    reference: Reference, embeddings: NDArray[np.float32], size: int, draws: int = 200, seed: int = 0
) -> float | None:
    """Return the share of random batches of embeddings [N, D] that are called unusual, in [0, 1], or None if N < size.

    On images that were not used to fit the reference, it is the rate of false alarms or of detections.
    """
    if len(embeddings) < size:
        return None
    rng = np.random.default_rng(seed)
    batches = (embeddings[rng.choice(len(embeddings), size, replace=False)] for _ in range(draws))
    return float(np.mean([reference.of(batch).unusual for batch in batches]))
