"""Small images for the tests of datasets."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def put(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(noise(seed)))
    return path


def folder_of(
    root: Path, domains: tuple[str, ...] = ("art", "photo"), classes: tuple[str, ...] = ("cat", "dog"), each: int = 2
) -> Path:
    """Write a valid dataset with `each` images of every class in every domain, all different."""
    seed = 0
    for domain in domains:
        for name in classes:
            for i in range(each):
                put(root / domain / name / f"{i}.png", seed)
                seed += 1
    return root
