"""Shares with their confidence intervals, and the interval of a difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054  # two-sided 95% of the normal distribution


@dataclass(frozen=True)
class Share:
    """An accuracy in [0, 1] and the bounds of its 95% confidence interval."""

    value: float
    low: float
    high: float


def wilson(right: float, images: int) -> tuple[float, float]:
    """Return (low, high), the 95% score interval of a proportion (Wilson, JASA 1927), within [0, 1].

    Args:
        right: number of correctly classified images.
    """
    share, more = right / images, Z95 * Z95 / images
    centre, half = share + more / 2, Z95 * math.sqrt(share * (1 - share) / images + more / (4 * images))
    return max(0.0, (centre - half) / (1 + more)), min(1.0, (centre + half) / (1 + more))


def share_of(accuracy: float, images: int) -> Share:
    """Return an accuracy over a number of images with its Wilson interval."""
    return Share(accuracy, *wilson(accuracy * images, images))


def difference(first: Share, second: Share) -> tuple[float, float]:
    """Return the 95% interval of first minus second (Newcombe, Statistics in Medicine 1998, method 10).

    It is intended for shares of different images. For shares of the same images it is wider than necessary.
    """
    gap = first.value - second.value
    low = math.hypot(first.value - first.low, second.high - second.value)
    high = math.hypot(first.high - first.value, second.value - second.low)
    return max(-1.0, gap - low), min(1.0, gap + high)
