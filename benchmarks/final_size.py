"""Students of the demo's drawings with other image sizes than that of their training, one source style left out.

    python benchmarks/final_size.py --scratch demo-sizes

The style that the demo holds out is used for nothing. Accuracies are in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vl2v
from common import circumstances, keep, scratch_option
from vl2v.demo.drawings import draw
from vl2v.demo.job import HELD_OUT, SETTINGS, STUDENT, TEACHER, WITH_TEACHER
from vl2v.locations import StoragePaths
from vl2v.nested import merge

SIZES = (64, 80, 96, 112, 128, 160)  # pixels; the students are trained with the first
METHODS = ("vl2v", "kd")
BATCH = 50


def main() -> None:
    """Train with every style left out, and save the accuracies."""
    root = scratch_option(__doc__)
    data = draw(root / "task")
    styles = sorted(path.name for path in data.iterdir() if path.is_dir() and path.name != HELD_OUT)
    figures = [measured(root, data, method, style, styles) for method in METHODS for style in styles]
    keep("final_size", {"sizes": SIZES, "runs": figures, "circumstances": circumstances()})


def measured(root: Path, data: Path, method: str, style: str, styles: Sequence[str]) -> dict[str, Any]:
    """Accuracy by size on a part of the drawings of the source styles, and of the left-out style."""
    out = root / f"{method}-{style}"
    run_settings = {"method": method, "seed": 0, "data": {"held_out": (HELD_OUT, style)}}
    if not (out / "evaluation.json").exists():
        storage = StoragePaths(root / "cache", root / "vectors.sqlite")
        settings = merge(merge(SETTINGS, WITH_TEACHER), run_settings)
        vl2v.distill(data, TEACHER, STUDENT, out=out, storage=storage, settings=settings, report=False)
    student = vl2v.Student.load(out)
    sources = [path for name in styles if name != style for path in files_of(data, name)[::4]]
    left_out = files_of(data, style)[::2]
    scores = {"sources": sources, "left_out": left_out}
    return {"method": method, "left_out_style": style} | {
        name: [accuracy(student, images, size) for size in SIZES] for name, images in scores.items()
    }


def files_of(data: Path, style: str) -> list[Path]:
    """Return the drawings of a style."""
    return sorted((data / style).glob("*/*.png"))


@torch.inference_mode()
def accuracy(student: vl2v.Student, images: Sequence[Path], size: int) -> float:
    """Return the accuracy in percent with images of another size."""
    preprocess, right = replace(student.preprocess, size=size), 0
    labels = np.array([student.classes.index(path.parent.name.replace("_", " ")) for path in images])
    for start in range(0, len(images), BATCH):
        inputs = torch.stack([preprocess(path) for path in images[start : start + BATCH]])
        answers = student.logits(student(inputs)).argmax(1).numpy()
        right += int((answers == labels[start : start + BATCH]).sum())
    return round(100 * right / len(images), 1)


if __name__ == "__main__":
    main()
