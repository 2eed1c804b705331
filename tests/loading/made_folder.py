"""A student folder as an untrusted party could have made it, and a function that uses the student."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vl2v.student.architectures import Recipe, build
from vl2v.student.backbones import Backbone, from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess
from vl2v.trust.fit import fit

CLASSES = ["cat", "dog", "horse"]
PREPROCESS = Preprocess(32, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


class Small(nn.Module):
    """A module of the user, so that no architecture is built."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 5))

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


def student_of(recipe: Recipe | None = None, backbone: Backbone | None = None, **provenance: Any) -> Student:
    """Return a small student with random weights and fitted trust data."""
    torch.manual_seed(0)
    recipe = recipe or Recipe("timm", "test_resnet")
    backbone = backbone or from_module(build(recipe), PREPROCESS, recipe)
    head = torch.randn(len(CLASSES), 4)
    student = Student(backbone, nn.Linear(backbone.features, 4), head, CLASSES, 20.0, {"seed": 0, **provenance})
    rng = np.random.default_rng(0)
    labels, domains = np.arange(60) % 3, np.array(["ink", "neon"]).repeat(30)
    rows = rng.normal(size=(60, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    student.trust = fit(rng.normal(size=(60, 3)).astype(np.float32), labels, domains, rows)
    return student.eval()


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file with the value that `edit` returns or changes in place."""
    content = json.loads(path.read_text())
    edited = edit(content)
    path.write_text(json.dumps(content if edited is None else edited))


def use(student: Student) -> None:
    """Use a student as in a prediction: finite probabilities, acceptance and drift."""
    chances = student.predict_proba([PICTURE, PICTURE.rotate(90)])
    assert chances.shape == (2, len(student.classes))
    assert np.isfinite(chances).all()
    assert np.allclose(chances.sum(axis=1), 1, atol=1e-4)
    if student.trust is not None:
        projected = student.project(PICTURE)
        student.trust.accepts(student.logits(projected).numpy(), coverage=1)
        if student.head is not None:
            student.trust.drift(student.embed(PICTURE))
