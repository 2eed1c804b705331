"""Embedding maps: images and class names on the first two principal axes of each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v.evaluation.evaluation import ROLES
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
    """One stage's.

    Attributes:
        stage: as in `embeddings.npz`.
        points: [N, 2] images.
        names: [K, 2] class names on the same axes; None where they have no part in the space.
        explained: share of the images' variance along the two axes together, in [0, 1].
        nearest: by role, the share of these images whose nearest class name is their own; empty without names.
    """

    stage: str
    points: NDArray[np.float64]
    names: NDArray[np.float64] | None
    explained: float
    nearest: Mapping[str, float]


def embedding_maps(arrays: Arrays) -> tuple[EmbeddingMap, ...]:
    """Every stage that the run kept, each on a basis of its own."""
    found = []
    for stage in STAGES:
        if stage not in arrays or len(arrays[stage]) < 3:
            continue
        rows = _unit(arrays[stage])
        texts = None if stage == "features" or "texts" not in arrays else _unit(arrays["texts"])
        mean, axes, explained = principal_axes(rows)
        names = None if texts is None else (texts - mean) @ axes
        found.append(EmbeddingMap(stage, (rows - mean) @ axes, names, explained, _nearest(rows, texts, arrays)))
    return tuple(found)


def principal_axes(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The two directions of greatest variance, by the singular values of the centred rows.

    Args:
        rows: [N, D], N at least 3 and D at least 2.

    Returns:
        (mean [D], axes [D, 2] of length one, share of the variance along them). The greatest entry of each axis is
        positive, so that the same rows give the same map.
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
    return {role: float(right[chosen].mean()) for role, chosen in roles.items() if chosen.any()}


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    length: NDArray[np.float64] = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.maximum(length, 1e-12)


def map_sheet(found: Sequence[EmbeddingMap], arrays: Arrays, classes: Sequence[str]) -> Sheet:
    """A line for every point: images with their path, class names without."""
    rows: list[tuple[str | float, ...]] = []
    for m in found:
        for i, (x, y) in enumerate(m.points):
            label = classes[int(arrays["label"][i])]
            place = (str(arrays["path"][i]), str(arrays["domain"][i]), str(arrays["role"][i]))
            rows.append((m.stage, "image", *place, label, float(x), float(y)))
        for name, (x, y) in zip(classes, [] if m.names is None else m.names, strict=False):
            rows.append((m.stage, "class name", "", "", "", name, float(x), float(y)))
    return Sheet.of("embedding_map", ("stage", "kind", "path", "domain", "role", "class", "x", "y"), rows)
