from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from once import Once
from vl2v.onnx_export.onnx import to_onnx, write
from vl2v.student.backbones import from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess

CLASSES = ["cat", "dog", "guinea pig"]
PREPROCESS = Preprocess(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DIMENSION = 6


@dataclass
class Exported:
    """A student and its exported file."""

    student: Student
    file: Path


def picture(seed: int, size: tuple[int, int] = (41, 37)) -> Image.Image:
    """Return blocks of random colours, which unlike noise stay distinct when they are resized."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def student_of(head: bool) -> Student:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=0)
    backbone = from_module(network, PREPROCESS)
    projection = nn.Linear(backbone.features, DIMENSION if head else len(CLASSES))
    with torch.no_grad():  # a network with random weights maps all images to similar features, so these are centred
        some = torch.stack([PREPROCESS(picture(seed)) for seed in range(100, 132)])
        projection.weight *= 30
        projection.bias.copy_(-(projection.weight @ network.eval()(some).mean(0)))
    texts = torch.randn(len(CLASSES), DIMENSION) if head else None
    made = {"seed": 7, "teacher": {"identity": "some", "revision": "1", "dimension": DIMENSION}}
    return Student(backbone, projection, texts, CLASSES, 20.0, made).eval()


def export(head: bool, once: Once) -> Exported:
    """Return a student and its exported file, which is slow to write."""
    student, kind = student_of(head), "cosine" if head else "linear"
    folder = once(f"exported-{kind}", lambda folder: write(to_onnx(student), folder / "model.onnx"))
    return Exported(student, folder / "model.onnx")


@pytest.fixture(scope="session")
def cosine(once: Once) -> Exported:
    return export(True, once)


@pytest.fixture(scope="session")
def linear(once: Once) -> Exported:
    return export(False, once)
