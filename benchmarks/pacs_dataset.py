"""PACS images, simulated vendor and student from the maintainers' folder."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vl2v.api import distill
from vl2v.cli.console import LogLines
from vl2v.locations import StoragePaths
from vl2v.nested import merge
from vl2v.teacher.base import Embeddings, TeacherCard
from vl2v.teacher.prompts import load_templates, render

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
DIMENSION, LOGIT_SCALE = 384, 20.0


def student(folder: Path) -> str:
    """The ImageNet-pretrained EfficientNet-Lite0, as settings name it."""
    return f"timm:tf_efficientnet_lite0@{folder / 'student' / 'tf_efficientnet_lite0.in1k.safetensors'}"


def link_images(folder: Path, scratch: Path) -> Path:
    """Link the client's 6,992 images into their own folder."""
    for path in json.loads((folder / "teacher" / "split.json").read_text())["client"]:
        link = scratch / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(folder / "data" / path)
    return scratch / "PACS"


def vectors_file(folder: Path, scratch: Path) -> Path:
    """The simulated vendor's embeddings of all images and both versions of the prompts, as the file of a teacher."""
    file = scratch / "teacher.npz"
    if file.exists():
        return file
    arrays = np.load(folder / "teacher" / "pacs_image_embeddings.npz")
    classes = sorted(path.name for path in (scratch / "PACS" / "photo").iterdir())
    prompts = [render(t, name) for kind in ("photo", "name") for t in load_templates(kind) for name in classes]
    fresh = scratch / "teacher.new.npz"
    np.savez(
        fresh,
        paths=np.array([str(path).removeprefix("PACS/") for path in arrays["paths"]]),
        embeddings=arrays["embeddings"].astype(np.float32),
        texts=np.array(prompts),
        text_embeddings=SimulatedVendor(folder).embed_texts(prompts),
        logit_scale=LOGIT_SCALE,
        identity="simulated vendor",
    )
    fresh.replace(file)
    return file


def run_without_classes(
    folder: Path, out: Path, name: str, target: str, classes: Sequence[str], settings: dict[str, Any]
) -> Path:
    """Distil a student without some classes and without a target domain, unless it is finished.

    Args:
        folder: the maintainers' folder.
        out: folder of the runs, of their cache and of their store.
        name: of the run.
        target: held-out domain.
        classes: held-out classes.
        settings: nested settings of the run.

    Returns:
        The run folder.
    """
    run = out / name
    if not (run / "evaluation.json").is_file():
        distill(
            link_images(folder, out / "task"),
            f"file:{vectors_file(folder, out / 'task')}",
            student(folder),
            out=run,
            held_out=[target],
            storage=StoragePaths(out / "cache", out / "vectors.sqlite"),
            progress=LogLines(),
            settings=merge(settings, {"data": {"held_out_classes": list(classes)}}),
        )
    return run


class SimulatedVendor:
    """The simulated vendor itself, a teacher that can be queried for any view of an image."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder / "teacher"))
        self._vendor = importlib.import_module("vendor").SimulatedVendor(folder / "teacher")

    def describe(self) -> TeacherCard:
        """See `vl2v.teacher.base.Teacher`."""
        return TeacherCard("simulated vendor, asked", "1", DIMENSION, LOGIT_SCALE, batch_size=32)

    def embed_images(self, images: list[bytes]) -> Embeddings:
        """See `vl2v.teacher.base.Teacher`."""
        embeddings: Embeddings = self._vendor.embed_images(images)
        return embeddings

    def embed_texts(self, texts: list[str]) -> Embeddings:
        """See `vl2v.teacher.base.Teacher`."""
        embeddings: Embeddings = self._vendor.embed_texts(texts)
        return embeddings
