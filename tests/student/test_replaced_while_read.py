"""A student whose classes are changed by another process while it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vl2v.student import files
from vl2v.student.architectures import Recipe, build
from vl2v.student.backbones import from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess

CLASSES = ["cat", "dog", "horse"]


def student_of(classes: list[str]) -> Student:
    torch.manual_seed(0)
    recipe = Recipe("timm", "test_resnet")
    backbone = from_module(build(recipe), Preprocess(32, (0.5,) * 3, (0.5,) * 3), recipe)
    linear = torch.nn.Linear(backbone.features, 4)
    return Student(backbone, linear, torch.randn(3, 4)[: len(classes)], classes, 20.0, {"seed": 0})


@pytest.mark.parametrize("step", ["_read_raw", "build", "_assembled"])
@pytest.mark.parametrize("after", [["cat", "dog"], ["cat", "dog", "horse"]])
def test_the_earlier_or_the_new_student_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: list[str]
) -> None:
    student_of(CLASSES if len(after) == 2 else CLASSES[:2]).save(tmp_path)
    before = Student.load(tmp_path)
    work: Callable[..., object] = getattr(files, step)

    def replaced(*arguments: object) -> object:
        done = work(*arguments)
        monkeypatch.undo()
        student_of(after).save(tmp_path)
        return done

    monkeypatch.setattr(files, step, replaced)
    student = Student.load(tmp_path)
    expected = student_of(after) if step == "_read_raw" else before
    assert student.classes == expected.classes
    assert student.head is not None
    assert expected.head is not None
    assert torch.equal(student.head, expected.head)
