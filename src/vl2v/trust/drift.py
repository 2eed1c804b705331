"""Fit the reference for drift detection on the training domains.

Nothing but the sources' validation images goes in, so the share of false alarms is set without any other domain. That
batches of an unseen domain are noticed is not promised; docs/how-to/trust.md says how often they were.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vl2v_runtime.drift import Floats, Reference, residuals

LEVEL = 0.01  # false alarms per batch
ROUNDS, DRAWS = 10, 200  # 2,000 batches per domain and size, of which 20 lie above the domain's limit
LARGEST = 256
LEAST_IMAGES = 12  # of a domain: fewer say nothing of their own spread
MOST_IMAGES = 1000  # of a domain: more take time and change little
LEAST_OF_CENTRE = 3
MOST_CENTRES = 64  # of a domain, its most frequent classes; keeps the file small where there are hundreds
DIGITS = 5

Parts = dict[str, NDArray[np.int64]]  # places by domain


def fit_reference(
    embeddings: NDArray[np.float32], domains: NDArray[np.str_], answers: NDArray[np.int64]
) -> Reference | None:
    """Keep centres, spreads, and how long the mean residuals of the training domains' own batches are.

    Lengths come from splits: two thirds of every domain make a reference, batches are drawn from the other third. The
    limit of a size is the greatest over the domains, so none of them raises more false alarms than `LEVEL`.

    Args:
        embeddings: [N, D], rows of length one, of validation images of the sources.
        domains: [N] names.
        answers: [N] the student's own answers; labels are not needed.

    Returns:
        The reference, which depends on the arguments alone; None if no domain has `LEAST_IMAGES`.
    """
    rng = np.random.default_rng(0)
    parts: Parts = {}
    for name in dict.fromkeys(domains.tolist()):
        places = np.flatnonzero(domains == name)
        if len(places) >= LEAST_IMAGES:
            parts[name] = np.sort(rng.permutation(places)[:MOST_IMAGES])
    if not parts:
        return None
    rows = embeddings.astype(np.float64)
    sizes = _sizes(min(len(part) // 3 for part in parts.values()))
    lengths: dict[int, list[Floats]] = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        mixed = {name: rng.permutation(part) for name, part in parts.items()}
        made = _reference(rows, {name: part[len(part) // 3 :] for name, part in mixed.items()}, answers)
        for size, found in _lengths(rows, [p[: len(p) // 3] for p in mixed.values()], made, sizes, rng).items():
            lengths[size].append(found)
    joined = [np.concatenate(lengths[size], axis=1) for size in sizes]
    limits = (float(np.quantile(found, 1 - LEVEL, axis=1).max()) for found in joined)
    made = _reference(rows, parts, answers)
    return replace(
        made,
        centres=made.centres.round(DIGITS),
        spreads=made.spreads.round(DIGITS),
        sizes=sizes,
        expected=tuple(round(float(np.median(found)), DIGITS) for found in joined),
        limit=tuple(round(limit, DIGITS) for limit in limits),
    )


def _sizes(greatest: int) -> tuple[int, ...]:
    return tuple(2**power for power in range(LARGEST.bit_length()) if 2**power <= greatest)


def _reference(rows: Floats, parts: Parts, answers: NDArray[np.int64]) -> Reference:
    """Centres and spreads, nothing measured yet."""
    centres = [_centres(rows[part], answers[part]) for part in parts.values()]
    domain = np.repeat(np.arange(len(parts)), [len(part) for part in centres])
    joined = np.concatenate(centres)
    moved = [residuals(rows[part], joined)[1] for part in parts.values()]
    spreads = np.array([max(np.sqrt((part**2).sum(axis=1).mean()), 10.0**-DIGITS) for part in moved])
    images = tuple(len(part) for part in parts.values())
    return Reference(tuple(parts), images, spreads, joined, domain, LEVEL, (1,), (1.0,), (1.0,))


def _centres(rows: Floats, answers: NDArray[np.int64]) -> Floats:
    """[C, D] means of the images answered alike, the most frequent answers first; of all if no answer is frequent."""
    found, counts = np.unique(answers, return_counts=True)
    frequent = [k for k in np.argsort(-counts, kind="stable")[:MOST_CENTRES] if counts[k] >= LEAST_OF_CENTRE]
    return np.stack([rows[answers == found[k]].mean(axis=0) for k in frequent] or [rows.mean(axis=0)])


def _lengths(
    rows: Floats,
    parts: list[NDArray[np.int64]],
    made: Reference,
    sizes: tuple[int, ...],
    rng: np.random.Generator,
) -> dict[int, Floats]:
    """Lengths of batches' mean residuals in units of spread / sqrt(size): by size, [M, DRAWS]."""
    found: dict[int, Floats] = {size: np.empty((len(parts), DRAWS)) for size in sizes}
    for place, part in enumerate(parts):
        centre, residual = residuals(rows[part], made.centres)
        squares = made.spreads[made.domain[centre]] ** 2
        order = rng.permuted(np.tile(np.arange(len(part)), (DRAWS, 1)), axis=1)
        for size in sizes:
            share = np.zeros((DRAWS, len(part)))
            np.put_along_axis(share, order[:, :size], 1 / size, axis=1)
            found[size][place] = np.linalg.norm(share @ residual, axis=1) / np.sqrt(share @ squares / size)
    return found


def share_unusual(
    reference: Reference, embeddings: NDArray[np.float32], size: int, draws: int = 200, seed: int = 0
) -> float | None:
    """The share in [0, 1] of random batches of one domain's [N, D] embeddings called unusual; None if N < size.

    On images that the reference was not fitted on this is the rate of false alarms or of detections.
    """
    if len(embeddings) < size:
        return None
    rng = np.random.default_rng(seed)
    batches = (embeddings[rng.choice(len(embeddings), size, replace=False)] for _ in range(draws))
    return float(np.mean([reference.of(batch).unusual for batch in batches]))
