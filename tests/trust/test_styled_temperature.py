"""The temperature that is fitted on validation images in other styles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from vl2v.arrays import ArraysError
from vl2v.evaluation.evaluation import IN_DOMAIN, OUT_OF_DOMAIN, student_answers
from vl2v.evaluation.predictions import read_predictions
from vl2v.evaluation.split import DomainPredictions, EvaluationDomain, save_predictions
from vl2v.evaluation.styles import styled_temperature
from vl2v.student.architectures import Recipe
from vl2v.student.backbones import from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess
from vl2v.trust.calibration import fit_temperature
from vl2v.trust.fit import fit

PREPROCESS = Preprocess(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CLASSES = ["cat", "dog", "owl"]


def make_student() -> Student:
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=0)
    backbone = from_module(module, PREPROCESS, Recipe("timm", "test_resnet"))
    return Student(backbone, torch.nn.Linear(backbone.features, 8), torch.randn(3, 8), CLASSES, 50.0)


def evaluated(student: Student, pixels: np.ndarray) -> tuple[list[EvaluationDomain], list[DomainPredictions]]:
    """Two domains; the labels are the student's predictions, so it is always right on unchanged images."""
    domains, parts = [], []
    for role, slots in ((IN_DOMAIN, np.arange(0, 40)), (OUT_OF_DOMAIN, np.arange(40, 60))):
        logits, _ = student_answers(student, pixels, slots)
        labels = logits.argmax(axis=1).astype(np.int64)
        paths = [f"{slot}.png" for slot in slots]
        domains.append(EvaluationDomain(role, role, slots, slots, None))
        parts.append(DomainPredictions(role, role, paths, labels, logits, None, classes=CLASSES))
    return domains, parts


@pytest.fixture
def pixels() -> np.ndarray:
    """60 images of four by four coloured squares."""
    squares = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3)).astype(np.uint8)
    return squares.repeat(8, axis=1).repeat(8, axis=2)


def test_a_student_that_is_wrong_in_other_styles_gets_a_higher_temperature(pixels: np.ndarray) -> None:
    student = make_student()
    domains, parts = evaluated(student, pixels)
    unchanged = fit_temperature(parts[0].logits, parts[0].labels)
    styled = styled_temperature(student, pixels, domains, parts)
    assert styled is not None
    assert styled > 1.5 * unchanged
    assert styled == styled_temperature(student, pixels, domains, parts), "deterministic"


def test_held_out_images_do_not_change_it(pixels: np.ndarray) -> None:
    student = make_student()
    domains, parts = evaluated(student, pixels)
    other = [parts[0], replace(parts[1], labels=(parts[1].labels + 1) % 3)]
    assert styled_temperature(student, pixels, domains, parts) == styled_temperature(student, pixels, domains, other)
    assert styled_temperature(student, pixels, domains[1:], parts[1:]) is None


@pytest.mark.parametrize(("styled", "expected"), [(9.0, 9.0), (0.1, None), (None, None)])
def test_the_temperature_is_at_least_that_of_other_styles(styled: float | None, expected: float | None) -> None:
    logits, labels = np.array([[9, 0], [9, 0], [0, 9]], np.float32), np.array([0, 0, 1])
    alone, trust = (fit(logits, labels, np.array(["ink"] * 3), styled_temperature=t) for t in (None, styled))
    assert alone is not None
    assert trust is not None
    assert trust.temperature == (expected or alone.temperature)


def test_it_is_saved_with_the_predictions_and_checked(tmp_path: Path, pixels: np.ndarray) -> None:
    _, parts = evaluated(make_student(), pixels)
    file = tmp_path / "predictions.npz"
    save_predictions(parts, file, styled_temperature=1.5)
    assert read_predictions(file).styled_temperature == 1.5
    assert read_predictions(file).roles()[IN_DOMAIN].styled_temperature == 1.5
    save_predictions(parts, file)
    assert read_predictions(file).styled_temperature is None
    save_predictions(parts, file, styled_temperature=1e9)
    with pytest.raises(ArraysError, match="temperature"):
        read_predictions(file)
