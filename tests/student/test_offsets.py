"""Offsets of logits: their choice for new classes, and their effect on a student."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vl2v.errors import StudentError
from vl2v.evaluation.offset import new_class_offset
from vl2v.student.backbones import Recipe, from_module
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess


@given(st.integers(1, 60), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.05, 0.1, 0.5]))
def test_the_offset_costs_the_known_classes_the_share(count: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    known, new = rng.normal(3, 1, (count, 3)), rng.normal(0, 1, (count, 2))
    offset = new_class_offset(known, new, share)
    lost = float((known.max(1) < new.max(1) + offset - 1e-3).mean())
    assert offset >= 0
    assert lost <= share + 1 / count or offset == 0
    assert float((known.max(1) < new.max(1) + offset + 0.1).mean()) >= share - 1 / count or offset == 0


def test_a_share_of_zero_gives_no_offset_and_offsets_are_not_negative() -> None:
    known, new = np.ones((20, 2)), np.full((20, 1), 5.0)
    assert new_class_offset(known, new, 0.0) == 0
    assert new_class_offset(known, new, 0.05) == 0
    assert new_class_offset(new, known, 0.05) == 4


def small(offsets: list[float] | None = None, head: bool = True) -> Student:
    torch.manual_seed(0)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    backbone = from_module(module, Preprocess(16, (0.5,) * 3, (0.5,) * 3), Recipe("module", "small"))
    rows = torch.randn(3, 4) if head else None
    return Student(backbone, nn.Linear(4, 4 if head else 3), rows, ["a", "b", "c"], 10.0, offsets=offsets)


def test_offsets_are_added_to_logits_and_saved(tmp_path: Path) -> None:
    plain, moved, rows = small(), small([0.0, 2.5, -1.0]), torch.randn(5, 4)
    np.testing.assert_allclose(moved.logits(rows) - plain.logits(rows), [[0, 2.5, -1.0]] * 5, atol=1e-5)
    moved.save(tmp_path / "moved")
    plain.save(tmp_path / "plain")
    assert "offsets" not in json.loads((tmp_path / "plain" / "student.json").read_text())
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    loaded = Student.load(tmp_path / "moved", module)
    assert loaded.offsets == [0.0, 2.5, -1.0]
    loaded.remove_class("b")
    loaded.add_class("d", [1, 0, 0, 0], 4.0)
    assert (loaded.classes, loaded.offsets) == (["a", "c", "d"], [0.0, -1.0, 4.0])


@pytest.mark.parametrize("offsets", [[1.0], [1.0, float("nan"), 0.0], [0.0] * 4, "abc", [0, 1e9, 0]])
def test_untrusted_offsets_are_checked(tmp_path: Path, offsets: object) -> None:
    small([0.0, 2.5, -1.0]).save(tmp_path)
    card = json.loads((tmp_path / "student.json").read_text())
    (tmp_path / "student.json").write_text(json.dumps(card | {"offsets": offsets}))
    with pytest.raises(StudentError):
        Student.load(tmp_path, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)))


def test_offsets_need_a_text_head() -> None:
    with pytest.raises(StudentError, match="text head"):
        small([0.0, 1.0, 0.0], head=False)
