"""Images of up to 2048 pixels, which an untrusted student can require, are processed in smaller batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vl2v.analysis.changed_images import model_outputs
from vl2v.commands.evaluate import classify
from vl2v.evaluation.features import pass_through
from vl2v.reports.comparison import measure_speed
from vl2v.student.architectures import Recipe, build
from vl2v.student.backbones import from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess

SIZE, COUNT = 32, 7
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
USES: dict[str, Callable[[Student, Path], object]] = {
    "predict": lambda student, _: student.predict_proba([Image.fromarray(pixels) for pixels in PIXELS]),
    "classify": lambda student, folder: classify(student, sorted(folder.iterdir())),
    "pixels": lambda student, _: student.project_pixels(IMAGES),
    "evaluate": lambda student, _: list(
        pass_through(student, student.preprocess, PIXELS, np.arange(COUNT), student.device)
    ),
    "changed copies": lambda student, _: list(model_outputs(student, None, IMAGES)),
    "speed": lambda student, _: measure_speed(student),
}


@pytest.fixture
def student() -> Student:
    torch.manual_seed(0)
    recipe = Recipe("timm", "test_resnet")
    backbone = from_module(build(recipe), Preprocess(SIZE, (0.5,) * 3, (0.5,) * 3), recipe)
    linear = torch.nn.Linear(backbone.features, 4)
    return Student(backbone, linear, torch.randn(3, 4), ["cat", "dog", "horse"], 20.0, {}).eval()


@pytest.mark.parametrize("use", USES)
def test_a_batch_has_a_limited_number_of_pixels(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    monkeypatch.setattr("vl2v.student.preprocess.MOST_PIXELS", 2 * SIZE**2)
    lengths: list[int] = []
    student.backbone.register_forward_pre_hook(lambda _, inputs: lengths.append(len(inputs[0])))
    USES[use](student, tmp_path)
    assert max(lengths) == 2


def test_divided_batches_give_the_same_results(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    undivided = student.project_pixels(IMAGES)
    monkeypatch.setattr("vl2v.student.preprocess.MOST_PIXELS", 2 * SIZE**2)
    assert torch.allclose(student.project_pixels(IMAGES), undivided, atol=1e-5)


@pytest.mark.parametrize(("size", "count"), [(32, 64), (224, 64), (512, 64), (1024, 16), (2048, 4)])
def test_usual_batches_are_not_divided(size: int, count: int) -> None:
    parts = Preprocess(size, (0.5,) * 3, (0.5,) * 3).parts(torch.empty(64))
    assert {len(part) for part in parts} == {count}
