"""Compare the fits of `student.fit` (squash, crop, pad) on images that are not square.

Every image of PACS is square, so a random part of 4:3, 3:4, 16:9 or 9:16 is cut out of each one, with a fixed seed.
Features of a frozen, pretrained backbone are computed under each fit, and a ridge classifier is solved on three domains
and evaluated on the fourth. Its strength is chosen on a fifth of the source images.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from common import circumstances, keep, need_shared
from pacs_dataset import DOMAINS, student
from vl2v.method.ridge import ridge
from vl2v.student.backbones import Backbone, load_backbone
from vl2v_runtime.fits import RESIZES, Fit
from vl2v_runtime.imaging import decode, square

SHAPES = ((4, 3), (3, 4), (16, 9), (9, 16))
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # relative to the mean variance of a feature
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def sample(data: Path, count: int, seed: int) -> tuple[list[Path], Labels, Labels]:
    """Paths, class numbers and domain numbers of the same number of images of each domain."""
    generator = np.random.default_rng(seed)
    classes = sorted(path.name for path in (data / DOMAINS[0]).iterdir())
    paths: list[Path] = []
    for domain in DOMAINS:
        every = sorted(path for path in (data / domain).rglob("*") if path.is_file())
        chosen = generator.permutation(len(every))[: count // len(DOMAINS)]
        paths += [every[i] for i in np.sort(chosen)]
    labels = [classes.index(path.parent.name) for path in paths]
    domains = [DOMAINS.index(path.parent.parent.name) for path in paths]
    return paths, np.array(labels), np.array(domains)


def cut(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """The largest part of a random shape, at a random place."""
    wide, high = SHAPES[generator.integers(len(SHAPES))]
    scale = min(image.width / wide, image.height / high)
    width, height = int(wide * scale), int(high * scale)
    left, top = generator.integers(image.width - width + 1), generator.integers(image.height - height + 1)
    return image.crop((int(left), int(top), int(left) + width, int(top) + height))


@torch.inference_mode()
def features(images: Sequence[Image.Image], backbone: Backbone, fit: Fit) -> Floats:
    """Features of images under a fit, [N, F]."""
    rows = []
    for start in range(0, len(images), 32):
        pixels = np.stack([square(image, backbone.preprocess.size, fit) for image in images[start : start + 32]])
        inputs = backbone.preprocess.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        rows.append(backbone.module(inputs).double().numpy())
    return np.concatenate(rows)


def hits(x: Floats, labels: Labels, train: Labels, test: Labels, strength: float) -> NDArray[np.bool_]:
    """Whether each image of `test` is classified correctly, after training on `train` with balanced classes."""
    share, targets = 1 / np.bincount(labels[train]), np.eye(labels.max() + 1)[labels[train]]
    weight, bias = ridge([(x[train], targets, share[labels[train]])], strength)
    right: NDArray[np.bool_] = (x[test] @ weight.T + bias).argmax(axis=1) == labels[test]
    return right


def left_out(x: Floats, labels: Labels, domains: Labels, target: int, seed: int) -> NDArray[np.bool_]:
    """Whether each image of a domain is classified correctly, after training on the others."""
    sources = np.flatnonzero(domains != target)
    order = np.random.default_rng([seed, target]).permutation(sources)
    validation, rest = np.split(order, [len(order) // 5])
    strength = max(STRENGTHS, key=lambda s: hits(x, labels, rest, validation, s).mean())
    return hits(x, labels, sources, np.flatnonzero(domains == target), strength)


def compared(right: dict[Fit, NDArray[np.bool_]], fit: Fit, other: Fit) -> dict[str, float]:
    """Difference of two fits in points, and its standard error over images, which are paired."""
    difference = 100.0 * (right[fit].astype(float) - right[other].astype(float))
    return {"points": float(difference.mean()), "error": float(difference.std(ddof=1) / math.sqrt(len(difference)))}


def main() -> None:
    """Measure and save the accuracy of every fit on every domain that is left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    folder = need_shared()
    before, start = circumstances([flags.seed]), time.process_time()
    backbone = load_backbone(student(folder), size=flags.size)
    backbone.module.eval()
    paths, labels, domains = sample(folder / "data" / "PACS", flags.images, flags.seed)
    generator = np.random.default_rng(flags.seed)
    images = [cut(decode(path), generator) for path in paths]
    right: dict[Fit, NDArray[np.bool_]] = {}
    table: dict[str, Any] = {}
    for fit in RESIZES:
        x = features(images, backbone, fit)
        parts = [left_out(x, labels, domains, target, flags.seed) for target in range(len(DOMAINS))]
        right[fit] = np.concatenate(parts)
        table[fit] = {name: round(100 * float(part.mean()), 2) for name, part in zip(DOMAINS, parts, strict=True)}
        table[fit]["mean"] = round(sum(table[fit].values()) / len(DOMAINS), 2)
    keep(
        "fit",
        {
            "setting": {"images": len(paths), "size": flags.size, "shapes": SHAPES, "strengths": STRENGTHS},
            "accuracy": table,
            "minus_squash": {fit: compared(right, fit, "squash") for fit in ("crop", "pad")},
            "cpu_seconds": round(time.process_time() - start, 1),
            "circumstances": before,
        },
    )


if __name__ == "__main__":
    main()
