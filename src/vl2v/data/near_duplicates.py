"""Images that resemble training images although their files differ: re-encoded copies, frames of one clip.

A perceptual hash of 64 bits (pHash: whether each of the lowest frequencies of the grey image exceeds their median)
finds candidates, and the correlation of the grey images confirms them. Both thresholds were chosen by viewing pairs of
the 9,991 images of PACS. Of the 600 pairs within a distance of 4, 97% are sketches, mostly of guitars with like
outlines, and not copies. 10 pairs have a correlation of at least 0.98: all are copies of one picture, recoloured,
repainted or with a watermark. Of the 11 pairs from 0.91 to 0.98, 2 are copies, which are not found. Neither are 3
copies of this correlation at a distance of 6; odd distances are rare.

The embeddings of a teacher give further candidates, the nearest training images, and `vl2v.data.alignment` confirms
them. This finds cropped and mirrored copies. A threshold of the cosine alone would not tell copies from other images,
see `benchmarks/near_duplicates.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vl2v.data.alignment import CORRELATION as ALIGNED
from vl2v.data.alignment import aligned_correlations
from vl2v.data.splits import Indices
from vl2v.progress import Progress, Silent

DISTANCE, CORRELATION = 4, 0.98
FLAT = np.uint64(2**64 - 1)  # replaces the hash of an image without structure, which would resemble any other
LEAST_CONTRAST = 2.0  # grey levels, of the lowest frequencies; the least of PACS is 3.7
HASHED, COMPARED = 8, 32  # frequencies per side
LARGEST = 64  # pixels per side; of larger images, every second, third, ... row and column is read
BLOCK = 256  # images in memory at a time
PARTNERS = 8  # candidates per image that are confirmed, the closest first
COSINE = 0.7  # least cosine of candidates, which keeps unlike images of small datasets from being compared
ROWS, COLUMNS = 512, 16_384  # tested and training embeddings that are multiplied at a time
CONFIRMED = 100_000  # candidates by embedding that are aligned, the closest first; about 40 s of CPU time
BRIEF = 5_000  # candidates that are aligned without a stage of progress; about 2 s of CPU time
MOST = 50_000_000  # pairs of hashes that are compared; more only occur if most images look alike
GREY = np.array([0.299, 0.587, 0.114], np.float32)

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]  # [P, 2]


class EmbeddingRows(NamedTuple):
    """Rows of an array of embeddings, which is read in blocks.

    Attributes:
        embeddings: [R, D] float32 of any length, usually a memory map.
        rows: [N] int64.
    """

    embeddings: Floats
    rows: Indices

    def unit(self, start: int, count: int) -> Floats:
        """Return at most `count` embeddings from `start` on, scaled to length one."""
        block = self.embeddings[self.rows[start : start + count]]
        return np.asarray(block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12), np.float32)


@dataclass(frozen=True)
class NearDuplicates:
    """Tested images that resemble a training image.

    Attributes:
        pairs: [P, 2] int64, indices of a tested image and of the training image that it resembles most. Each tested
            image occurs at most once.
    """

    pairs: Pairs
    complete: bool = True


def near_duplicates(pixels: NDArray[np.uint8], tested: Indices, training: Indices) -> NearDuplicates:
    """Find the tested images that resemble a training image.

    Args:
        pixels: [slots, S, S, 3] uint8, usually a memory map.
        tested: [M] slots.
        training: [N] slots.
    """
    every, where = np.unique(np.concatenate([tested, training]), return_inverse=True)
    hashed = hashes(pixels, every)[where]
    candidates, complete = close_pairs(hashed[: len(tested)], hashed[len(tested) :])
    alike = correlations(pixels, tested[candidates[:, 0]], training[candidates[:, 1]])
    return NearDuplicates(_best(candidates, alike, CORRELATION), complete)


def near_duplicates_of_embeddings(
    pixels: NDArray[np.uint8],
    tested: Indices,
    training: Indices,
    ours: EmbeddingRows,
    theirs: EmbeddingRows,
    progress: Progress | None = None,
) -> NearDuplicates:
    """Find the tested images that resemble a training image after cropping, moving or mirroring.

    Args:
        pixels: [slots, S, S, 3] uint8, usually a memory map.
        tested: [M] slots.
        training: [N] slots.
        ours: embeddings of the M tested images.
        theirs: embeddings of the N training images.
        progress: receives a stage if there are more than `BRIEF` candidates.
    """
    candidates, cosines = neighbours(ours, theirs)
    complete = len(candidates) <= CONFIRMED
    candidates = candidates[np.argsort(-cosines, kind="stable")[:CONFIRMED]]
    stage_progress = progress if progress and len(candidates) > BRIEF else Silent()
    with stage_progress.stage("comparing similar images", len(candidates)) as advance:
        alike = aligned_correlations(pixels, tested[candidates[:, 0]], training[candidates[:, 1]], advance)
    return NearDuplicates(_best(candidates, alike, ALIGNED), complete)


def neighbours(ours: EmbeddingRows, theirs: EmbeddingRows) -> tuple[Pairs, Floats]:
    """Return each of M embeddings with the `PARTNERS` nearest of N embeddings whose cosine is at least `COSINE`.

    Returns:
        ([P, 2] int64, indices; [P] float32, cosines).
    """
    pairs, cosines = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(ours.rows), ROWS):
        rows = ours.unit(start, ROWS)
        best, where = np.zeros((len(rows), 0), np.float32), np.zeros((len(rows), 0), np.int64)
        for left in range(0, len(theirs.rows), COLUMNS):
            block = rows @ theirs.unit(left, COLUMNS).T
            count = min(PARTNERS, block.shape[1])
            columns = np.argpartition(block, -count, axis=1)[:, -count:]
            best = np.concatenate([best, np.take_along_axis(block, columns, 1)], 1)
            where = np.concatenate([where, columns + left], 1)
            nearest = np.argsort(-best, axis=1, kind="stable")[:, :PARTNERS]
            best, where = np.take_along_axis(best, nearest, 1), np.take_along_axis(where, nearest, 1)
        row, column = np.nonzero(best >= COSINE)
        pairs.append(np.stack([row + start, where[row, column]], 1))
        cosines.append(best[row, column])
    return np.concatenate(pairs), np.concatenate(cosines)


def _best(candidates: Pairs, alike: NDArray[np.float64], least: float) -> Pairs:
    """Return the most similar pair of each tested image, if its similarity is at least `least`."""
    good = alike >= least
    order = np.lexsort((-alike[good], candidates[good, 0]))
    pairs = candidates[good][order]
    return pairs[np.unique(pairs[:, 0], return_index=True)[1]]


def coefficients(pixels: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Return the lowest frequencies of the discrete cosine transform of grey images, without the mean.

    Args:
        pixels: [B, S, S, 3] uint8.
        side: frequencies per side, at most S.

    Returns:
        [B, side * side - 1] float32, in grey levels.
    """
    step = max(1, pixels.shape[1] // LARGEST)
    part = pixels[:, step // 2 :: step, step // 2 :: step]
    size = part.shape[1]
    samples, frequencies = np.arange(size) + 0.5, np.arange(side)[:, None]
    waves = np.cos(np.pi * frequencies * samples / size) * np.where(frequencies == 0, 1, np.sqrt(2)) / size
    rows = waves.astype(np.float32)
    columns = (rows[:, :, None] * GREY).reshape(side, -1).T  # the sum over colours converts to grey
    product: NDArray[np.float32] = rows @ (part.reshape(len(part), size, -1).astype(np.float32) @ columns)
    return product.reshape(len(part), -1)[:, 1:]


def hashes(pixels: NDArray[np.uint8], slots: Indices) -> Hashes:
    """Return the perceptual hashes of N slots, [N] uint64; `FLAT` for an image without structure."""
    packed_hashes = np.empty(len(slots), np.uint64)
    for start in range(0, len(slots), BLOCK):
        values = coefficients(pixels[slots[start : start + BLOCK]], HASHED)
        bits = np.zeros((len(values), 64), np.bool_)
        bits[:, 1:] = values > np.median(values, axis=1, keepdims=True)
        # Neighbouring frequencies depend on each other: spread over the bits, the parts of a hash differ more.
        spread = bits.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)
        packed = np.packbits(spread, axis=1).view(np.uint64).ravel()
        flat = np.linalg.norm(values, axis=1) < LEAST_CONTRAST
        packed_hashes[start : start + BLOCK] = np.where(flat, FLAT, packed)
    return packed_hashes


def close_pairs(tested: Hashes, training: Hashes, most: int = MOST) -> tuple[Pairs, bool]:
    """Return pairs of hashes that differ in at most `DISTANCE` bits.

    Such hashes are equal in at least one of `DISTANCE` + 1 parts, so only hashes with an equal part are compared.

    Args:
        tested: [M] hashes.
        training: [N] hashes.
        most: maximum number of comparisons.

    Returns:
        ([P, 2] indices, at most `PARTNERS` for each tested image; whether all hashes were compared).
    """
    (ours, our_images), (theirs, their_images) = _distinct(tested), _distinct(training)
    close, comparisons = [np.zeros((0, 3), np.int64)], 0
    for low, high in _parts():
        mask = np.uint64((1 << high) - (1 << low))
        order = np.argsort(theirs & mask, kind="stable")
        keys = (theirs & mask)[order]
        first, last = (np.searchsorted(keys, ours & mask, side) for side in ("left", "right"))
        for indices, counts in _blocks(last - first):
            comparisons += int(counts.sum())
            if comparisons > most:
                return _images(np.concatenate(close), our_images, their_images), False
            left = np.repeat(indices, counts)
            within = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
            right = order[np.repeat(first[indices], counts) + within]
            distance = np.bitwise_count(ours[left] ^ theirs[right])
            near = distance <= DISTANCE
            close.append(np.stack([left[near], right[near], distance[near]], axis=1).astype(np.int64))
    return _images(np.concatenate(close), our_images, their_images), True


def correlations(pixels: NDArray[np.uint8], tested: Indices, training: Indices) -> NDArray[np.float64]:
    """Return the correlations of the grey images of P pairs of slots, in [-1, 1]."""
    cosines = np.zeros(len(tested))
    side = min(COMPARED, pixels.shape[1])
    for start in range(0, len(tested), BLOCK):
        part = slice(start, start + BLOCK)
        a, b = (coefficients(pixels[slots[part]], side).astype(np.float64) for slots in (tested, training))
        cosines[part] = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines


def _parts() -> Iterator[tuple[int, int]]:
    """Return the first bit of each part of a hash, and the end of the last part."""
    edges = np.linspace(0, 64, DISTANCE + 2).round().astype(int).tolist()
    return pairwise(edges)


def _distinct(image_hashes: Hashes) -> tuple[Hashes, list[Indices]]:
    """Return the distinct hashes and the indices of their images; images without structure are omitted."""
    usable = np.flatnonzero(image_hashes != FLAT)
    order = usable[np.argsort(image_hashes[usable], kind="stable")]
    values, starts = np.unique(image_hashes[order], return_index=True)
    return values, np.split(order, starts[1:]) if len(values) else []


def _blocks(counts: Indices, most: int = 2_000_000) -> Iterator[tuple[Indices, Indices]]:
    """Yield indices with a count above 0 and their counts, in blocks with a sum of about `most`."""
    indices = np.flatnonzero(counts)
    block = np.cumsum(counts[indices]) // most
    for part in np.split(indices, np.flatnonzero(np.diff(block)) + 1):
        if len(part):
            yield part, counts[part]


def _images(pairs: NDArray[np.int64], ours: list[Indices], theirs: list[Indices]) -> Pairs:
    """Return pairs of images for [P, 3] pairs of distinct hashes with their distance."""
    unique = np.unique(pairs[:, [0, 2, 1]], axis=0)  # the closest first
    partners_of: dict[int, list[int]] = {}
    for left, _, right in unique.tolist():
        partners = partners_of.setdefault(left, [])
        partners += theirs[right][: PARTNERS - len(partners)].tolist()
    rows = [
        (image, other) for left, partners in partners_of.items() for image in ours[left].tolist() for other in partners
    ]
    return np.array(rows, np.int64).reshape(-1, 2)
