"""Whether a batch of embeddings looks like the domains that a student learnt from: a hint, from numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
ITERATIONS = 200  # of projected gradient; the same number when limits are measured and when they are applied


@dataclass(frozen=True)
class Drift:
    """How far a batch lies from the training domains.

    Attributes:
        nearest: the training domain that it resembles most; empty for an empty batch.
        distance: Euclidean, of its mean residual from the nearest mixture of the domains' means; rows of length one.
        expected: the median distance of as many images of the training domains.
        limit: the distance above which the batch is called unusual.
        unusual: whether it is above.
        images: how many it has.
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
            return "no image to compare with the training domains"
        what = "1 image lies" if self.images == 1 else f"{self.images:,} images lie"
        head = "unlike the training domains" if self.unusual else "like the training domains"
        return (
            f"{head}: {what} {self.distance:.3f} from them (nearest: {self.nearest}), "
            f"usual is {self.expected:.3f}, the limit {self.limit:.3f}"
        )


@dataclass(frozen=True)
class Reference:
    """What is kept of the training domains.

    An image counts by its residual: its embedding minus the nearest of `centres`. So a batch of dogs alone is not
    unusual for having one class only. A batch counts by the mean of its residuals, whose distance from a domain's mean
    shrinks with the root of the batch's size; `expected` and `limit` are in that unit, the domain's spread / sqrt(n).
    A mixture of training domains is no drift either, so the distance is that from the nearest point between the means.

    Attributes:
        names: M training domains.
        images: validation images of each.
        means: [M, D], of residuals.
        spreads: [M], root mean squared distance of a residual from its domain's mean.
        centres: [C, D], mean embeddings of the images given to each class.
        level: the share of batches from the training domains that are called unusual all the same.
        sizes: [S] batch sizes, rising, at which the next two were measured; a larger batch counts as the largest.
        expected: [S] medians.
        limit: [S] quantiles 1 - level.
    """

    names: tuple[str, ...]
    images: tuple[int, ...]
    means: Floats
    spreads: Floats
    centres: Floats
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
        dimension = self.means.shape[1]
        if rows.ndim != 2 or rows.shape[1] != dimension or not np.isfinite(rows).all():
            raise ValueError(f"drift expects finite embeddings [N, {dimension}]; found {rows.shape}")
        if not len(rows):
            return Drift("", 0.0, 0.0, 0.0, False, 0)
        mean = residuals(rows, self.centres).mean(axis=0, keepdims=True)
        distance, scale, shares = distances(mean, self.means, self.spreads)
        counted = min(len(rows), self.sizes[-1])
        unit = float(scale[0]) / np.sqrt(counted)
        expected, limit = (
            float(np.interp(np.log(counted), np.log(self.sizes), row)) * unit for row in (self.expected, self.limit)
        )
        nearest = self.names[int(shares[0].argmax())]
        return Drift(nearest, float(distance[0]), expected, limit, bool(distance[0] > limit), len(rows))

    @classmethod
    def from_dict(cls, domains: Mapping[str, Any], drift: Mapping[str, Any]) -> Reference:
        """Read the parts ``domains`` and ``drift`` of trust.json.

        Raises:
            KeyError, TypeError, ValueError: if something is missing or does not fit together.
        """
        listed = list(domains.values())
        made = cls(
            tuple(domains),
            tuple(int(part["images"]) for part in listed),
            np.array([part["mean"] for part in listed], dtype=np.float64),
            np.array([part["spread"] for part in listed], dtype=np.float64),
            np.array(drift["centres"], dtype=np.float64),
            float(drift["level"]),
            tuple(int(size) for size in drift["sizes"]),
            tuple(float(value) for value in drift["expected"]),
            tuple(float(value) for value in drift["limit"]),
        )
        shapes = made.means.ndim, made.centres.ndim, made.means.shape[-1]
        rising = all(a < b for a, b in zip(made.sizes, made.sizes[1:], strict=False)) and made.sizes[:1] >= (1,)
        fitting = len(made.sizes) == len(made.expected) == len(made.limit)
        if shapes != (2, 2, made.centres.shape[-1]) or not rising or not fitting:
            raise ValueError("the drift reference's parts do not fit together")
        return made

    def to_dict(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parts ``domains`` and ``drift`` of trust.json, plain values."""
        parts = zip(self.names, self.images, self.means, self.spreads, strict=True)
        domains = {
            name: {"mean": _rounded(mean), "images": images, "spread": round(float(spread), 6)}
            for name, images, mean, spread in parts
        }
        measured: dict[str, Sequence[float]] = {"expected": self.expected, "limit": self.limit}
        return domains, {
            "level": self.level,
            "sizes": list(self.sizes),
            **{key: [round(value, 4) for value in values] for key, values in measured.items()},
            "centres": [_rounded(row) for row in self.centres],
        }


def residuals(embeddings: Floats, centres: Floats) -> Floats:
    """[N, D] embeddings minus the nearest of [C, D] centres, [N, D]."""
    nearest = (embeddings @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
    found: Floats = embeddings - centres[nearest]
    return found


def distances(points: Floats, means: Floats, spreads: Floats) -> tuple[Floats, Floats, Floats]:
    """The distance of points from the convex hull of means.

    Args:
        points: [B, D].
        means: [M, D].
        spreads: [M].

    Returns:
        [B] Euclidean distances; [B] the spread of the nearest mixture, the root of its shares' mean square; [B, M]
        the mixture's shares, each row summing to 1.
    """
    middle = means.mean(axis=0)
    centred, moved = means - middle, points - middle
    gram, cross = centred @ centred.T, moved @ centred.T
    step = 1 / max(float(np.linalg.eigvalsh(gram)[-1]), 1e-12)
    shares = np.full((len(points), len(means)), 1 / len(means))
    for _ in range(ITERATIONS if len(means) > 1 else 0):
        shares = _on_simplex(shares - step * (shares @ gram - cross))
    away = np.linalg.norm(moved - shares @ centred, axis=1)
    return away, np.sqrt(shares @ spreads**2), shares


def _on_simplex(rows: Floats) -> Floats:
    """The nearest point of the probability simplex to each row (Duchi et al., ICML 2008)."""
    falling = -np.sort(-rows, axis=1)
    excess = (np.cumsum(falling, axis=1) - 1) / np.arange(1, rows.shape[1] + 1)
    last = (falling > excess).sum(axis=1, keepdims=True) - 1
    found: Floats = np.maximum(rows - np.take_along_axis(excess, last, axis=1), 0)
    return found


def _rounded(row: Floats) -> list[float]:
    return [round(float(value), 5) for value in row]
