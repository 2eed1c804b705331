"""The correlation of two images after one was cropped, moved or mirrored to fit the other.

The lowest frequencies of the grey images, scaled to a square, are compared. Scales and shifts along both axes are
fitted by least squares (Gauss-Newton), first to few frequencies and then to more, so that a crop of a fifth of the side
is within reach. `benchmarks/near_duplicates.py` measures which changes are found, and how often other images are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vl2v.data.splits import Indices
from vl2v.progress import Advance

SIDE, FREQUENCIES = 64, 32  # of the grey squares
LEVELS = ((8, 16, 4), (16, 32, 3), (32, 64, 3))  # frequencies, side and number of steps, from coarse to fine
LEAST = (0.7, 0.85)  # correlation on a coarse level below which a pair is given up; copies had at least 0.76 and 0.89
CORRELATION = 0.96  # of copies. Of 95 such pairs in PACS, 88 are copies or one scene twice, 7 are other guitars
OVERLAP, CONTRAST = 0.5, 2.0  # least share of the square, and standard deviation in grey levels, that are compared
STEP, SCALE, SHIFT = 0.15, 1.6, 0.4  # limits of a step, a scale and a shift; the square reaches from -1 to 1
BLOCK = 128  # pairs in memory at a time

Floats = NDArray[np.float32]


def waves(frequencies: int, size: int) -> Floats:
    """Return the cosines of the lowest frequencies, [frequencies, size] float32."""
    samples, numbers = np.arange(size) + 0.5, np.arange(frequencies)[:, None]
    return (np.cos(np.pi * numbers * samples / size) * np.where(numbers == 0, 1, np.sqrt(2))).astype(np.float32)


def spectra(pixels: NDArray[np.uint8], slots: Indices) -> Floats:
    """Return the lowest frequencies of the discrete cosine transform of grey images.

    Args:
        pixels: [slots, S, S, 3] uint8, usually a memory map.

    Returns:
        [N, FREQUENCIES, FREQUENCIES] float32, in grey levels.
    """
    size, box = (SIDE, SIDE), Image.Resampling.BOX
    grey = [np.asarray(Image.fromarray(pixels[slot]).convert("L").resize(size, box), np.float32) for slot in slots]
    cosines = waves(FREQUENCIES, SIDE) / SIDE
    return np.asarray(cosines @ np.stack(grey) @ cosines.T, np.float32)


def aligned_correlations(
    pixels: NDArray[np.uint8], one: Indices, other: Indices, advance: Advance = lambda _: None
) -> NDArray[np.float64]:
    """Return the correlation of each of P pairs of slots after alignment, [P] in [-1, 1].

    It is the larger one of both orientations of the second image. Of a pair that was given up on a coarse level, it is
    that of the coarse level, and below `CORRELATION`.

    Args:
        pixels: [slots, S, S, 3] uint8, usually a memory map.
        one: [P] slots.
        other: [P] slots.
        advance: called with the number of pairs after each block of them.
    """
    correlations = np.full(len(one), -1.0)
    mirror = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(np.float32)
    for start in range(0, len(one), BLOCK):
        part = slice(start, start + BLOCK)
        first, second = spectra(pixels, one[part]), spectra(pixels, other[part])
        both = _fitted(np.concatenate([first, first]), np.concatenate([second, second * mirror]))
        correlations[part] = both.reshape(2, -1).max(0)
        advance(len(first))
    return correlations


def _fitted(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Return the correlations of P pairs of spectra after the second image is aligned with the first."""
    correlation = np.zeros(len(first))
    fit = np.tile([1.0, 0.0, 1.0, 0.0], (len(first), 1))  # scale and shift of rows, then of columns
    candidates = np.arange(len(first))
    for (frequencies, side, steps), least in zip(LEVELS, (*LEAST, CORRELATION), strict=True):
        cosines = waves(frequencies, side)
        image, moved = (_image(s[candidates, :frequencies, :frequencies], cosines) for s in (first, second))
        correlation[candidates], fit[candidates] = _on_level(image, moved, fit[candidates], steps)
        candidates = candidates[correlation[candidates] >= least]
        if not len(candidates):
            break
    return correlation


def _image(part: Floats, cosines: Floats) -> Floats:
    return np.asarray(cosines.T @ part @ cosines, np.float32)


def _on_level(image: Floats, moved: Floats, fit: NDArray[np.float64], steps: int) -> tuple[NDArray[np.float64], ...]:
    """Improve the scales and shifts of P pairs of images [P, n, n]; return the correlations [P] and the fits [P, 4]."""
    side = image.shape[1]
    place = ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)
    down, right = np.gradient(moved, 2 / side, axis=(1, 2))
    for step in range(steps + 1):
        rows, columns = (_interpolation(fit[:, i], fit[:, i + 1], place) for i in (0, 2))
        columns = columns.transpose(0, 2, 1)
        inside = (rows.sum(2)[:, :, None] > 0.99) & (columns.sum(1)[:, None] > 0.99)
        count = np.maximum(inside.sum((1, 2)), 1)
        samples = _centred(np.asarray(rows @ moved @ columns, np.float32), inside, count)
        target = _centred(image, inside, count)
        norms = [np.maximum(np.linalg.norm(part, axis=1), 1e-6) for part in (target, samples)]
        if step == steps:
            break
        by_row, by_column = rows @ down @ columns, rows @ right @ columns
        slopes = (by_row * place[:, None], by_row, by_column * place, by_column)
        jacobian = np.stack([_centred(part, inside, count) for part in slopes], 1)
        error = target * (norms[1] / norms[0])[:, None] - samples
        normal = jacobian @ jacobian.transpose(0, 2, 1)
        normal += np.eye(4) * (1e-9 + 2.5e-4 * np.trace(normal, axis1=1, axis2=2)[:, None, None])
        change = np.linalg.solve(normal, jacobian @ error[:, :, None])[:, :, 0]
        fit = fit + np.clip(change, -STEP, STEP)
        fit = np.clip(fit, [1 / SCALE, -SHIFT, 1 / SCALE, -SHIFT], [SCALE, SHIFT, SCALE, SHIFT])
    usable = (np.minimum(*norms) >= CONTRAST * np.sqrt(count)) & (count >= OVERLAP * side**2)
    return np.where(usable, (target * samples).sum(1) / (norms[0] * norms[1]), 0.0), fit


def _interpolation(scale: NDArray[np.float64], shift: NDArray[np.float64], place: Floats) -> Floats:
    """Return matrices [P, n, n] whose row i samples a line at ``scale * place[i] + shift``, linearly."""
    side = len(place)
    where = (scale[:, None] * place + shift[:, None] + 1) * side / 2 - 0.5
    return np.asarray(np.maximum(0, 1 - np.abs(where[:, :, None] - np.arange(side))), np.float32)


def _centred(images: Floats, inside: NDArray[np.bool_], count: Indices) -> Floats:
    """Return images [P, n, n] without their mean and without what is outside, [P, n * n]."""
    part = images * inside
    return np.asarray((part - (part.sum((1, 2)) / count)[:, None, None] * inside).reshape(len(part), -1), np.float32)
