"""A process that is killed while it saves a student leaves one that loads, and a repeated change completes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vl2v.student import files
from vl2v.student.model import Student
from vl2v.trust.fit import fit
from vl2v_runtime.trust import Trust


class KilledError(BaseException):
    """Simulates SIGKILL between two files."""


def add_zebra(folder: Path) -> Student:
    """Change the student like `vl2v classes add`."""
    student = Student.load(folder)
    student.provenance[files.CHANGES] = [{"at": "2026-01-01", "before": list(student.classes)}]
    student.add_class("zebra", np.ones(4, np.float32))
    assert student.trust is not None
    student.trust = Trust(student.trust.temperature, student.trust.reject, {"changes": 1})
    student.save(folder)
    return student


@pytest.mark.parametrize("written", range(3))
def test_a_killed_change_of_classes_is_completed_by_repeating_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    folder = plain_student().save(tmp_path / "student")
    done, replace = 0, Path.replace

    def dying(self: Path, target: Any) -> Path:
        nonlocal done
        if done == written:
            raise KilledError
        done += 1
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(KilledError):
            add_zebra(folder)
    left = Student.load(folder)
    known = "zebra" in left.classes
    assert known == (written == 2), "the weights decide"
    described = files.read_card(folder)
    assert described["classes"] == left.classes
    assert bool(described["provenance"].get(files.CHANGES)) == known
    assert left.trust is not None
    assert ("changes" in left.trust.calibration) == (written > 0)
    if not known:
        left = add_zebra(folder)
    assert Student.load(folder).classes == left.classes
    trust = Student.load(folder).trust
    assert trust is not None
    assert trust.calibration == {"changes": 1}


def plain_student() -> Student:
    import torch
    from torch import nn

    from vl2v.student.architectures import Recipe, build
    from vl2v.student.backbones import from_module
    from vl2v.student.preprocess import Preprocess

    recipe = Recipe("timm", "test_resnet")
    backbone = from_module(build(recipe), Preprocess(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), recipe)
    student = Student(backbone, nn.Linear(backbone.features, 4), torch.eye(3, 4), ["a", "b", "c"], 20.0, {"seed": 0})
    rng = np.random.default_rng(0)
    student.trust = fit(rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 3, np.array(["x", "y"]).repeat(30))
    return student.eval()
