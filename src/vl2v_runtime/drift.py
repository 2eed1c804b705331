"""Whether a batch of embeddings looks like the domains that a student learnt from: a hint, from numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vl2v_runtime.numbers import number, numbers, whole

Floats = NDArray[np.float64]
LARGEST = 1e6  # of a number in a file; embeddings have length one
LONGEST_NAME = 1_000


@dataclass(frozen=True)
class Drift:
    """Deviation of a batch from the training domains.

    Attributes:
        nearest: the most similar training domain; empty for an empty batch.
        distance: length of the mean residual, see `Reference`; embeddings have length one.
        expected: median distance of the same number of images of the training domains.
        limit: distance above which the batch is unusual.
        unusual: whether it is above.
        images: number of images.
    """

    nearest: str
    distance: float
    expected: float
    limit: float
    unusual: bool
    images: int

    @property
    def text(self) -> str:
        """One line for people."""
        if not self.images:
            return "there is no image to compare with the training domains"
        what = "1 image" if self.images == 1 else f"{self.images:,} images"
        head = "unlike the training domains" if self.unusual else "similar to the training domains"
        return (
            f"{head}: {what}, distance {self.distance:.3f} (nearest: {self.nearest}), "
            f"usual {self.expected:.3f}, limit {self.limit:.3f}"
        )


@dataclass(frozen=True)
class Reference:
    """What is kept of the training domains.

    Every class in every domain has a centre, the mean of its embeddings. An image counts by its residual, its embedding
    minus the nearest centre; a batch by the length of its images' mean residual. So neither a mixture of training
    domains nor a batch of dogs alone is unusual as such. Chance alone makes that length shrink with the root of the
    batch's size; `expected` and `limit` are in this unit, the domain's spread / sqrt(N).

    Attributes:
        names: M training domains.
        images: validation images of each.
        spreads: [M], root mean square of a residual's length.
        centres: [C, D].
        domain: [C] int64, the domain of each centre.
        level: the share of batches from the training domains that are called unusual all the same.
        sizes: [S] batch sizes, rising, at which the next two were measured; a larger batch counts as the largest.
        expected: [S] medians.
        limit: [S] quantiles 1 - level.
    """

    names: tuple[str, ...]
    images: tuple[int, ...]
    spreads: Floats
    centres: Floats
    domain: NDArray[np.int64]
    level: float
    sizes: tuple[int, ...]
    expected: tuple[float, ...]
    limit: tuple[float, ...]

    def of(self, embeddings: ArrayLike) -> Drift:
        """Compare a batch, [N, D] finite embeddings with rows of length one, N from 0.

        Raises:
            ValueError: if the shape is another, or a value is not finite.
        """
        rows = np.asarray(embeddings, dtype=np.float64)
        dimension = self.centres.shape[1]
        if rows.ndim != 2 or rows.shape[1] != dimension or not np.isfinite(rows).all():
            raise ValueError(f"expected finite embeddings [N, {dimension}], found {list(rows.shape)} or not finite")
        if not len(rows):
            return Drift("", 0.0, 0.0, 0.0, False, 0)
        centre, residual = residuals(rows, self.centres)
        like = self.domain[centre]
        distance = float(np.linalg.norm(residual.mean(axis=0)))
        counted = min(len(rows), self.sizes[-1])
        unit = float(np.sqrt((self.spreads[like] ** 2).mean() / counted))
        expected, limit = (
            float(np.interp(np.log(counted), np.log(self.sizes), row)) * unit for row in (self.expected, self.limit)
        )
        nearest = self.names[int(np.bincount(like).argmax())]
        return Drift(nearest, distance, expected, limit, distance > limit, len(rows))

    @classmethod
    def from_dict(cls, domains: Mapping[str, Any], drift: Mapping[str, Any]) -> Reference:
        """Read the parts ``domains`` and ``drift`` of trust.json.

        Raises:
            KeyError, TypeError, ValueError: if something is missing or does not fit together.
        """
        parts = list(domains.values())
        centres = [_centres(part["centres"]) for part in parts]
        made = cls(
            tuple(str(name)[:LONGEST_NAME] for name in domains),
            tuple(whole(part["images"], "images", 0, 10**12) for part in parts),
            np.array([number(part["spread"], "spread", 0, LARGEST) for part in parts], dtype=np.float64),
            np.concatenate(centres),
            np.repeat(np.arange(len(parts)), [len(part) for part in centres]),
            number(drift["level"], "level", 0, 1),
            tuple(whole(size, "sizes", 1, 10**9) for size in drift["sizes"]),
            tuple(numbers(drift["expected"], "expected", 0, LARGEST)),
            tuple(numbers(drift["limit"], "limit", 0, LARGEST)),
        )
        sizes = made.sizes
        rising = sizes[:1] >= (1,) and all(a < b for a, b in pairwise(sizes))
        if not rising or not len(sizes) == len(made.expected) == len(made.limit):
            raise ValueError("the parts of the drift reference do not fit together")
        return made

    def to_dict(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parts ``domains`` and ``drift`` of trust.json, plain values."""
        domains = {
            name: {
                "images": self.images[place],
                "spread": float(self.spreads[place]),
                "centres": self.centres[self.domain == place].tolist(),
            }
            for place, name in enumerate(self.names)
        }
        measured = {"sizes": list(self.sizes), "expected": list(self.expected), "limit": list(self.limit)}
        return domains, {"level": self.level, **measured}


def _centres(rows: Any) -> Floats:
    """[C, D], C and D at least 1."""
    table = np.asarray(rows)
    if table.ndim != 2 or not table.size or table.dtype.kind not in "fi" or not (np.abs(table) <= LARGEST).all():
        raise ValueError(f"centres of shape {list(table.shape)[:4]} and type {table.dtype}, or not finite")
    return table.astype(np.float64)


def residuals(embeddings: Floats, centres: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The nearest of [C, D] centres to each of [N, D] embeddings, [N], and the embeddings minus these, [N, D]."""
    nearest = (embeddings @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
    return nearest, embeddings - centres[nearest]
