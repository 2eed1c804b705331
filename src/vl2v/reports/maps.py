"""Embedding maps: images and class names on the first two principal axes of each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v.evaluation.evaluation import ROLES
from vl2v.method.ridge import unit_rows
from vl2v.reports.sheet import Sheet
from vl2v.reports.source import Arrays

STAGES = {
    "features": "Before Align",
    "aligned": "After Align",
    "distilled": "After Distill",
    "teacher": "Teacher",
}


@dataclass(frozen=True)
class EmbeddingMap:
    """Embedding map of one stage.

    Attributes:
        stage: name of the stage in `embeddings.npz`.
        points: [N, 2], the images.
        names: [K, 2], the class names on the same axes. None if they are not in the same space.
        explained: share of the variance of the images along both axes, in [0, 1].
        nearest: share of images whose nearest class name is the correct one, by role. Empty without names.
    """

    stage: str
    points: NDArray[np.float64]
    names: NDArray[np.float64] | None
    explained: float
    nearest: Mapping[str, float]


def embedding_maps(arrays: Arrays) -> tuple[EmbeddingMap, ...]:
    """Return a map of every stage that the run saved, each with its own axes."""
    maps = []
    for stage in STAGES:
        if stage not in arrays or len(arrays[stage]) < 3:
            continue
        rows = unit_rows(arrays[stage])
        texts = None if stage == "features" or "texts" not in arrays else unit_rows(arrays["texts"])
        mean, axes, explained = principal_axes(rows)
        names = None if texts is None else (texts - mean) @ axes
        maps.append(EmbeddingMap(stage, (rows - mean) @ axes, names, explained, _nearest(rows, texts, arrays)))
    return tuple(maps)


def principal_axes(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the two directions of largest variance, from the singular value decomposition of the centred rows.

    Args:
        rows: [N, D], N at least 3 and D at least 2.

    Returns:
        (mean [D], axes [D, 2] of length one, share of the variance along them). The entry of each axis with
        the largest absolute value is positive, so the same rows have the same map.
    """
    mean = rows.mean(axis=0)
    _, values, directions = np.linalg.svd(rows - mean, full_matrices=False)
    axes = directions[:2].T
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return mean, axes, float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-12))


def _nearest(rows: NDArray[np.float64], texts: NDArray[np.float64] | None, arrays: Arrays) -> dict[str, float]:
    if texts is None:
        return {}
    right = (rows @ texts.T).argmax(axis=1) == arrays["label"]
    roles = {role: arrays["role"] == role for role in ROLES}
    return {role: float(right[mask].mean()) for role, mask in roles.items() if mask.any()}


def map_sheet(maps: Sequence[EmbeddingMap], arrays: Arrays, classes: Sequence[str]) -> Sheet:
    """Return one row per point, for images and class names."""
    rows: list[tuple[str | float, ...]] = []
    for m in maps:
        for i, (x, y) in enumerate(m.points):
            label = classes[int(arrays["label"][i])]
            image = (str(arrays["path"][i]), str(arrays["domain"][i]), str(arrays["role"][i]))
            rows.append((m.stage, "image", *image, label, float(x), float(y)))
        for name, (x, y) in zip(classes, [] if m.names is None else m.names, strict=False):
            rows.append((m.stage, "class name", "", "", "", name, float(x), float(y)))
    return Sheet("embedding_map", ("stage", "kind", "path", "domain", "role", "class", "x", "y"), rows)
