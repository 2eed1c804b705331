"""The projection is fitted again to the features of the trained backbone, with `distill.refit`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture
from torch import nn

import vl2v
from vl2v.config import RunConfig
from vl2v.errors import ConfigError, DataError
from vl2v.locations import StoragePaths
from vl2v.progress import Silent, Vl2vWarning
from vl2v.recipes import with_recipe
from vl2v.training.refit import MOST_EXAMPLES, selection
from vl2v.validation import parse
from vl2v_runtime.fits import Fit
from vl2v_runtime.imaging import Pixels, square

STEPS: dict[str, Any] = {"steps": 6, "checkpoint_every": 3, "learning_rate": 1e-2, "weights": "last"}


def distilled(bench: Bench, out: Path, student: Any = None, data: dict[str, Any] | None = None, **more: Any) -> Any:
    """A run that trains with a few steps; `more` are settings of Distill, and of the method."""
    method = {"vl2v": more.pop("vl2v")} if "vl2v" in more else {}
    return vl2v.distill(
        bench.data,
        bench.teacher,
        bench.student if student is None else student,
        out=out,
        held_out=["rose"],
        settings=TINY | method | {"distill": STEPS | more, "data": data or {}},
        storage=StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite"),
        report=False,
        progress=Silent(),
    )


def weights(run: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """The backbone, and weight and bias of the projection."""
    student = vl2v.Student.load(run.folder)
    assert isinstance(student.projection, nn.Linear)
    return dict(student.backbone.state_dict()), student.projection.weight, student.projection.bias


def better() -> Callable[..., float]:
    """A validation accuracy that grows with every call, so that the new projection is always used."""
    accuracies = itertools.count()
    return lambda *_: float(next(accuracies))


def test_the_projection_solves_align_on_the_trained_features(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v.training.refit.validation_accuracy", better())
    without, refit = (distilled(bench, tmp_path / str(value), refit=value) for value in (False, True))
    (backbone, old, _), (same, new, _) = weights(without), weights(refit)
    assert all(torch.equal(backbone[name], same[name]) for name in backbone)
    assert not torch.equal(old, new)
    teacher = np.load(bench.root / "teacher.npz")
    images = dict(zip(teacher["paths"].tolist(), torch.from_numpy(teacher["embeddings"]), strict=True))
    names = [name for name in images if not name.startswith("rose")]  # with the few validation images
    targets = nn.functional.normalize(torch.stack([images[name] for name in names]), dim=-1)

    def loss(run: Any) -> float:
        student = vl2v.Student.load(run.folder)
        embeddings = torch.from_numpy(student.embed([bench.data / name for name in names]))
        assert student.head is not None
        texts = student.head[[student.classes.index(Path(name).parent.name.replace("_", " ")) for name in names]]
        return -float((embeddings * (targets + texts)).sum(-1).mean() / 2)

    assert loss(refit) < loss(without) - 0.01


def test_every_set_of_weights_gets_its_own_projection(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v.training.refit.validation_accuracy", better())
    run = distilled(bench, tmp_path / "last", refit=True)
    both = vl2v.distill(
        bench.data, bench.teacher, bench.student, out=tmp_path / "both", held_out=["rose"], report=False,
        settings=TINY | {"distill": STEPS | {"refit": True, "weights": "swad"}, "measure": {"weights": ["last"]}},
        storage=StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite"), progress=Silent(),
    )  # fmt: skip
    assert both is not None
    alternative = both.evaluation.alternatives["last"]
    assert [row.student_ece for row in alternative.rows] == pytest.approx(
        [row.student_ece for row in run.evaluation.rows], abs=1e-6
    )
    assert not torch.equal(weights(both)[1], weights(run)[1])


@pytest.mark.parametrize("after", [0.8, 0.9, 0.95])
def test_only_a_projection_that_is_more_accurate_is_used(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    before = distilled(bench, tmp_path / "before", refit=False)
    accuracies = iter([0.9, after])
    monkeypatch.setattr("vl2v.training.refit.validation_accuracy", lambda *_: next(accuracies))
    run = distilled(bench, tmp_path / "after", refit=True)
    assert torch.equal(weights(run)[1], weights(before)[1]) == (after <= 0.9)
    assert torch.equal(weights(run)[2], weights(before)[2]) == (after <= 0.9)


def test_images_that_have_changed_leave_the_projection(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: object) -> None:
        raise DataError("The image has changed.", expected="as before", found="another", next_step="start again")

    before = distilled(bench, tmp_path / "before", refit=False)
    monkeypatch.setattr("vl2v.training.refit._pixels", changed)
    with pytest.warns(Vl2vWarning, match="was not fitted again"):
        run = distilled(bench, tmp_path / "after", refit=True)
    assert torch.equal(weights(run)[1], weights(before)[1])


def test_larger_images_are_decoded_from_their_files(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v.evaluation.final_size.TOLERANCE", 1.0)  # the largest size is used
    sizes: list[int] = []

    def counted(image: Image.Image, size: int, fit: Fit) -> Pixels:
        sizes.append(size)
        return square(image, size, fit)

    monkeypatch.setattr("vl2v.training.refit.square", counted)
    run = vl2v.distill(
        bench.data, bench.teacher, bench.student, out=tmp_path / "run", held_out=["rose"], report=False,
        settings=TINY | {"distill": STEPS | {"refit": True}, "student": {"size": 32, "final_size": "auto"}},
        storage=StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite"), progress=Silent(),
    )  # fmt: skip
    assert run is not None
    assert set(sizes) == {run.student.preprocess.size}
    assert len(sizes) == 48  # 60 images of two domains, without those of validation
    assert run.student.preprocess.size > 32


def test_pseudo_labels_are_labels_of_the_regression(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v.training.refit.validation_accuracy", better())
    few = {"labels_per_class": 2, "rest_unlabelled": True}

    def projection(name: str, confidence: float) -> torch.Tensor:
        # With such a rate, training does not change the backbone, so only the regression can differ.
        settings = {"refit": True, "learning_rate": 1e-12, "vl2v": {"pseudo_labels": confidence}}
        return weights(distilled(bench, tmp_path / name, data=few, **settings))[1]

    assert not torch.allclose(projection("with", 0.5), projection("without", 1.0))


def test_the_projection_stays_if_all_features_are_the_same(bench: Bench, tmp_path: Path) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.convolution(images)
            return features.mean((2, 3)) * 0 + 1

    run = distilled(bench, tmp_path / "run", Constant(), refit=True)
    student = vl2v.Student.load(run.folder, Constant())
    assert isinstance(student.projection, nn.Linear)
    assert student.projection.weight.isfinite().all()


def test_a_selection_keeps_the_few_labelled_images() -> None:
    rows = np.arange(50_000)
    groups, shares = (rows[:20], rows[20:40], rows[40:]), (3, 3, 6)
    chosen, positions = selection(groups, shares, 0)
    assert [len(group) for group in positions] == [20, 20, MOST_EXAMPLES // 2]
    assert np.array_equal(chosen[:40], rows[:40])
    assert np.isin(chosen[positions[2]], rows[40:]).all()
    assert len(np.unique(chosen)) == len(chosen)
    assert np.array_equal(chosen, selection(groups, shares, 0)[0])
    assert not np.array_equal(chosen, selection(groups, shares, 1)[0])
    assert np.array_equal(selection(groups[:2], (1, 1), 0)[0], rows[:40])


@pytest.mark.parametrize("method", ["erm", "kd", "feature", "text"])
def test_only_the_dual_loss_fits_the_projection_again(method: str) -> None:
    assert "refit" not in with_recipe({"recipe": "ood", "method": method})["distill"]
    with pytest.raises(ConfigError, match=r"distill\.refit"):
        parse(RunConfig, {"method": method, "distill": {"refit": True}, **NEEDED}, "test")


def test_the_encoder_of_the_teacher_has_no_projection_to_fit() -> None:
    assert "refit" not in with_recipe({"recipe": "ood", "student": {"spec": "teacher"}})["distill"]


def test_a_run_of_an_earlier_version_keeps_its_projection() -> None:
    assert with_recipe({"recipe": "ood"})["distill"]["refit"] is True
    assert "distill" not in with_recipe({"recipe": "ood", "made_with": {"vl2v": "0.1"}})


NEEDED: dict[str, Any] = {"data": {"root": "photos"}, "teacher": {"spec": "offline:"}, "student": {"spec": "offline:"}}
