"""After training, the student may be used with larger images than it was trained with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture

import vl2v
from vl2v.config import RunConfig
from vl2v.evaluation import final_size
from vl2v.evaluation.final_size import larger_sizes
from vl2v.locations import StoragePaths
from vl2v.planning.plan import RunPlan
from vl2v.progress import Recorder, Silent
from vl2v.recipes import with_recipe
from vl2v.student.backbones import from_module, load_backbone
from vl2v.student.preprocess import Preprocess

SETTINGS = TINY | {"student": {"size": 32, "final_size": "auto"}, "distill": {"steps": 2, "checkpoint_every": 1}}


def accurate(monkeypatch: pytest.MonkeyPatch, **shares: float) -> None:
    """Make the student have these accuracies at sizes such as p32."""

    def share(plan: RunPlan, *_: Any) -> float:
        return shares[f"p{plan.student_backbone.preprocess.size}"]

    monkeypatch.setattr(final_size, "_accuracy", share)


def distilled(bench: Bench, out: Path, notes: Recorder | None = None, **options: Any) -> vl2v.Run:
    storage = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    every: dict[str, Any] = {"held_out": ["rose"], "settings": SETTINGS, "storage": storage, "report": False} | options
    return vl2v.distill(bench.data, bench.teacher, bench.student, **every, out=out, progress=notes or Silent())


@pytest.mark.parametrize(
    ("shares", "size"), [((0.5, 0.7, 0.494), 40), ((0.5, 0.496, 0.51), 48), ((0.5, 0.49, 0.6), 32)]
)
def test_the_student_has_the_largest_size_that_costs_no_accuracy(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], size: int
) -> None:
    accurate(monkeypatch, **dict(zip(("p32", "p40", "p48"), shares, strict=True)))
    notes = Recorder(Silent())
    run = distilled(bench, tmp_path / "run", notes)
    student = vl2v.Student.load(run.folder)
    assert student.preprocess.size == size
    assert json.loads((run.folder / "student" / "student.json").read_text())["preprocess"]["size"] == size
    saved = np.load(run.folder / "predictions.npz")
    images = [bench.data / path for path in saved["path"]]
    assert np.allclose(student.logits(student.project(images)).numpy(), saved["student"], atol=0.02)  # float16


def test_evaluation_and_held_out_classes_have_the_final_size(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accurate(monkeypatch, p32=0.5, p40=0.6, p48=0.7)
    settings = SETTINGS | {"data": {"held_out_classes": ["bar"]}}
    run = distilled(bench, tmp_path / "run", settings=settings)
    assert run.unseen is not None
    storage = StoragePaths(tmp_path / "cache", bench.root / "vectors.sqlite")
    again = vl2v.evaluate(run.folder, bench.data, storage=storage)
    known = {row.domain: row.student for row in run.evaluation.rows}
    assert {row.domain: row.student for row in again.rows} == known


def test_the_size_does_not_change_if_an_image_has_changed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student_settings, trained = bench.copy(tmp_path / "own"), final_size.larger_sizes

    def changed(backbone: Any) -> list[int]:
        for path in (student_settings.data / "rose").rglob("*.png"):
            shutil.copy(student_settings.data / "ink" / "bar" / "0.png", path)
        return trained(backbone)

    accurate(monkeypatch, p32=0.5, p40=0.6, p48=0.7)
    monkeypatch.setattr(final_size, "larger_sizes", changed)
    notes = Recorder(Silent())
    run = distilled(student_settings, tmp_path / "run", notes)
    assert vl2v.Student.load(run.folder).preprocess.size == 32
    assert any("have changed since they were read" in warning for warning in notes.warnings)


def test_no_size_above_that_of_the_pretrained_weights() -> None:
    linear = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    backbone = from_module(linear, Preprocess(128, (0.5,) * 3, (0.5,) * 3))
    assert larger_sizes(backbone) == []
    assert larger_sizes(replace(backbone, pretrained_size=224)) == [160, 192]
    assert larger_sizes(replace(backbone, pretrained_size=176)) == [160, 176]
    assert larger_sizes(replace(backbone, pretrained_size=128)) == []
    assert load_backbone("offline:", size=64).pretrained_size == 224


def test_no_size_that_the_backbone_does_not_accept() -> None:
    class Rigid(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), 3 * 64 * 64)[:, :8]

    rigid = replace(from_module(Rigid(), Preprocess(64, (0.5,) * 3, (0.5,) * 3)), pretrained_size=224)
    assert larger_sizes(rigid) == []


def test_a_stated_size_is_final() -> None:
    base = {"recipe": "ood", "data": {"root": "d"}, "teacher": {"spec": "offline:"}}
    sizes = [
        RunConfig.model_validate(base | {"student": {"spec": "offline:"} | student_settings}).student.final_size
        for student_settings in ({}, {"size": 128}, {"size": 128, "final_size": "auto"}, {"final_size": "train"})
    ]
    assert sizes == ["auto", "train", "auto", "train"]
    assert "student" not in with_recipe({"recipe": "paper"})
